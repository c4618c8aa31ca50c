r"""What may stand after a value without changing it: a finite list of units, currencies and counted things.

Any other word there makes the answer another one: `5 million`, `5 point five` and `5\text{7}` are not 5.
"""

from __future__ import annotations

import re

Unit = tuple[tuple[str, int], ...]  # names with their powers, sorted; () where there is none

# A line a unit: its name, then other spellings. Plurals are made by `_name`.
_UNITS = """
cm centimeter centimetre|mm millimeter millimetre|m meter metre mtr|km kilometer kilometre|in inch|ft foot feet|yd yard|mi mile
nm nanometer nanometre|um micron micrometer micrometre|pm picometer picometre|angstrom|pc parsec|kpc kiloparsec|mpc megaparsec
au|ly lightyear|acre|hectare ha|s second sec|ms millisecond|ns nanosecond|min minute|h hour hr|day|week wk|month|year yr
decade|century|g gram gm|kg kilogram kilo|mg milligram|ug microgram|lb pound|oz ounce|ton tonne|L liter litre|ml milliliter
millilitre|gal gallon|quart qt|pint|cup|tablespoon tbsp|teaspoon tsp|N newton|J joule|kj kilojoule|W watt|kw kilowatt|V volt
ampere amp|ohm|Hz hertz khz mhz ghz|Pa pascal kpa|atm atmosphere|ev electronvolt|kev|mev|erg|dyne|gauss|coulomb|tesla|farad
kelvin|celsius|fahrenheit|degree deg|radian rad|arcsec arcsecond|arcmin arcminute|mol mole|molar|calorie cal kcal|bit|byte
kb|mb|gb|dollar usd buck|cent|euro eur|pence penny pennies|rupee|yen|point pt|unit|mph|kmh kph kmph|cc
"""
_THINGS = """
people person page piece student book apple marble cookie egg slice bottle fish kid child children bag box cake card
balloon pencil can bird tree pack crayon peach animal orange ticket rose email flower block sticker boy customer game
fruit girl pen friend pair bead stamp banana candy candies camper toy car tomato wheel cracker cat sack action coin
shirt question movie jellybean app seat chocolate word pet cupcake package leg pie seed cow chicken doll ball glass
pill pizza song item dog photo group letter goat sandwich passenger plant shoe scoop sheet pastry pupil employee shell
vote serving turtle loaf loaves duck brownie nail lemon visitor necklace goal house step guest donut doughnut room
meal strawberry plate nickel dime trip tile bracelet frog berry button man men woman women jar notebook painting match
bus sheep lap leaf leaves lollipop row drum sweet wrapper vegetable stick hotdog skip sleep round bone episode home
candle dish case file rabbit lion tire gift container brick token eraser daisy log envelope insect player chip bill
class petal eye basket spot marshmallow soda picture pancake batch line carrot potato star scarf barrel roll night
member set present key dress ant nut popsicle bar biscuit muffin parent shelf shelves decoration bug novel kitten
towel adult horse problem magazine space chapter newspaper spoon machine hit bushel crate puzzle hole window bee puppy
object flight grape session boat building straw plane train truck bike bicycle worker teacher job test exam quiz color
shape side edge vertex vertices face integer number digit way permutation combination subset triangle square rectangle
circle dot path term solution flour sugar water milk rice value factor divisor atom electron molecule
"""
_ADJECTIVES = "more extra additional new red green blue yellow white black pink purple brown gold large small different"
_ADVERBS = "left old each total altogether remaining long high tall wide deep away ago"
_BEFORE, _AFTER = frozenset(_ADJECTIVES.split()), frozenset(_ADVERBS.split())
_JOINS = frozenset({"per", "of", "a", "an", "each", "/"})
_POWERS = {"square": 2, "sq": 2, "squared": 2, "cubic": 3, "cu": 3, "cubed": 3}
_QUOTIENTS = {"mph": (("mi", 1), ("h", -1)), "kmh": (("km", 1), ("h", -1)), "cc": (("cm", 3),)}
_NAMES = {word: line.split()[0] for line in re.split(r"[|\n]", _UNITS.strip()) for word in line.split()}
_NAMES = {word: word for word in _THINGS.split()} | _NAMES

_WRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textrm|rm|operatorname)\s*\{((?:[A-Za-z\s~/.\\-]|\^\{?-?\d\}?)*)\}")
_TOKEN = r"[A-Za-z]+\.?(?:\s*\^\s*\{?\s*-?\d\s*\}?)?"
_TAIL = re.compile(rf"(?:(?<=[\d)}}\]\s])|^)(?:/\s*)?{_TOKEN}(?:(?:\s*/\s*|\s*\\cdot\s*|\s+|(?<=[A-Za-z])-)(?:{_TOKEN}))*\s*$")
_PART = re.compile(r"([A-Za-z]+)\.?(?:\s*\^\s*\{?\s*(-?\d)\s*\}?)?|/")


def split(text: str, letters: bool) -> tuple[str, Unit]:
    r"""A value and the unit after it, `(text, ())` where none of the list stands there.

    Args:
        text: an answer tidied by `latex.tidy`.
        letters: whether single letters are units (`5 m`) and not symbols.
    """
    plain = _WRAPPED.sub(lambda found: f" {found[1].replace('~', ' ')} ", text)
    tail = _TAIL.search(plain)
    if tail is None:
        return text, ()
    parts = list(_PART.finditer(plain, tail.start()))
    for i, first in enumerate(parts):
        before = plain[: first.start()]
        free = before.endswith((" ", ")", "]", "}", "/")) or before[-1:].isdigit()
        unit = _unit(parts[i:], letters) if free or first[0] == "/" else None
        if unit is not None and before.strip():
            return before.strip(), unit
    return text, ()


def _unit(parts: list[re.Match[str]], letters: bool) -> Unit | None:
    """The unit that all these words are, or None where one of them is not known or hangs."""
    powers: dict[str, int] = {}
    sign, power, last = 1, 1, ""
    for part in parts:
        word = part[1] or "/"
        name = None if len(word) == 1 and not letters and word != "/" else _name(word)
        if word in _JOINS and last and not (word == "each" and part is parts[-1]):
            sign = 1 if word == "of" else -1
        elif word in _POWERS and not part[2]:
            if word.endswith("ed") and last in powers:
                powers[last] *= _POWERS[word]
            else:
                power = _POWERS[word]
        elif name is not None:
            for each, exponent in _QUOTIENTS.get(name, ((name, 1),)):
                powers[each] = powers.get(each, 0) + sign * exponent * power * int(part[2] or 1)
            power, last = 1, name
        elif not (word in _AFTER and last) and not (word in _BEFORE and part is not parts[-1]):
            return None
    if not last or parts[-1][0] in _JOINS - {"each"} or power != 1:
        return None
    return tuple(sorted((name, n) for name, n in powers.items() if name != "unit"))


def _name(word: str) -> str | None:
    """The name of a unit however it is spelled, or None. Single letters are as they are: N is not n."""
    if len(word) == 1 or word in _NAMES:
        return _NAMES.get(word)
    word = word.lower()
    for end, by in (("", ""), ("s", ""), ("es", ""), ("ies", "y")):
        stem = word[: len(word) - len(end)] + by
        if word.endswith(end) and len(stem) > 1 and stem in _NAMES:
            return _NAMES[stem]
    return None
