"""Built-in environments, registered under lazy entry points: importing this imports none of them."""

from agentdistill.datasets import register_dataset
from agentdistill.environment import needs_package, register
from agentdistill.envs.data import needs_data
from agentdistill.envs.java import needs_java
from agentdistill.verbs import callable_as_verb

_TEXTWORLD = needs_package("textworld", "pip install 'agentdistill[textworld]'")
_ALFWORLD = (
    needs_package("alfworld", "pip install 'agentdistill[alfworld]'"),
    needs_package("fast_downward", "pip install 'agentdistill[alfworld]'"),
    needs_data("alfworld"),
)
_MATH = (needs_package("math_verify", "pip install 'agentdistill[math]'"), needs_data("math"))
_WEBSHOP = (
    needs_package("nltk", "pip install 'agentdistill[webshop]'"),
    needs_package("rapidfuzz", "pip install 'agentdistill[webshop]'"),
    needs_data("webshop"),
)
_SCIENCEWORLD = (needs_package("scienceworld", "pip install 'agentdistill[scienceworld]'"), needs_java)
_EXPRESS = (needs_package("textworld_express", "pip install 'agentdistill[textworld-express]'"), needs_java)

register("agentdistill/TextWorld-v0", "agentdistill.envs.textworld:TextWorldEnv", requires=_TEXTWORLD)
register("agentdistill/Arithmetic-v0", "agentdistill.envs.arithmetic:ArithmeticEnv")
register("agentdistill/Calculator-v0", "agentdistill.envs.arithmetic:ArithmeticEnv")  # its name before the word problems
register("agentdistill/ALFWorld-v0", "agentdistill.envs.alfworld:ALFWorldEnv", requires=_ALFWORLD)
register("agentdistill/MathPython-v0", "agentdistill.envs.math:MathPythonEnv", requires=_MATH)
register("agentdistill/Code-v0", "agentdistill.envs.code:CodeEnv", requires=needs_data("code"))
register("agentdistill/WebShop-v0", "agentdistill.envs.webshop:WebShopEnv", requires=_WEBSHOP)
register("agentdistill/ScienceWorld-v0", "agentdistill.envs.scienceworld:ScienceWorldEnv", requires=_SCIENCEWORLD)
register("agentdistill/TextWorldExpress-v0", "agentdistill.envs.textworld_express:TextWorldExpressEnv", requires=_EXPRESS)
register("agentdistill/Tools-v0", "agentdistill.envs.tool:ToolEnv")

register_dataset("alfworld", "agentdistill.envs.alfworld.dataset:DATASET")
register_dataset("webshop", "agentdistill.envs.webshop.dataset:DATASET")
register_dataset("math", "agentdistill.envs.math_dataset:DATASET")
register_dataset("code", "agentdistill.envs.code.dataset:DATASET")

callable_as_verb(__name__)
