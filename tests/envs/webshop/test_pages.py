from __future__ import annotations

from agentdistill.envs.webshop import pages
from agentdistill.envs.webshop.pages import Node
from agentdistill.envs.webshop.products import Product

LAMP = Product(
    asin="B01", title="Lamp", description="", bullets=["bright ", "", "\n", " "], price_tag="$5.0", pricing=[5.0],
    options={"color": ["red", 'size 5"'], "fit": ["red"]}, attributes=["wood"], category="garden", query="lamps",
    product_category="Home › Lamps",
)  # fmt: skip


def test_blank_runs_are_one_space_or_vanish_as_in_parsed_html():
    nodes = pages.sub_page("Buy.", LAMP, "Features")
    assert pages.as_text(nodes) == "Instruction: [SEP] Buy. [SEP] Back to Search [SEP] < Prev [SEP] bright [SEP]  [SEP] "
    assert pages.as_rich_text(nodes, "", ()).endswith("[button] < Prev [button_]\n bright \n \n \n")
    assert pages.as_text(pages.sub_page("Buy.", LAMP, "Description")).endswith("< Prev")


def test_attributes_are_shown_with_category_and_query():
    text = pages.as_text(pages.sub_page("Buy.", LAMP, "Attributes"))
    assert text.endswith("< Prev [SEP] wood [SEP] garden [SEP] lamps [SEP] Home › Lamps")
    assert "Attributes" in pages.as_text(pages.item_page("Buy.", LAMP, show_attributes=True))
    assert "Attributes" not in pages.as_text(pages.item_page("Buy.", LAMP, show_attributes=False))


def test_rich_text_marks_buttons_options_and_what_was_clicked():
    url = 'http://127.0.0.1:3000/item_page/1/B01/lamp/1/{"fit": "red", "color": "size 5\\""}'
    assert pages.as_rich_text(pages.item_page("Buy.", LAMP, False), url, ()) == (
        "You have clicked red.\nYou have clicked red.\nInstruction:\nBuy.\n[button] Back to Search [button_]\n"
        '[button] < Prev [button_]\ncolor\n  [clicked button] red [clicked button_]\n  [button] size 5" [button_]\n'
        "fit\n  [clicked button] red [clicked button_]\nLamp\nPrice: $5.0\nRating: N.A.\n[button] Description [button_]\n"
        "[button] Features [button_]\n[button] Reviews [button_]\n[button] Buy Now [button_]\n"
    )


def test_rich_text_of_results_tells_which_products_were_opened():
    nodes = pages.results_page("Buy.", 2, 12, [LAMP])
    assert pages.as_rich_text(nodes, "", {"B01"}) == (
        "Instruction:\nBuy.\n[button] Back to Search [button_]\nPage 2 (Total results: 12)\n[button] < Prev [button_]\n"
        "[button] Next > [button_]\n\n[clicked button] B01 [clicked button_]\nLamp\n$5.0\n"
    )
    assert "\n\n[button] B01 [button_]\n" in pages.as_rich_text(nodes, "", ())


def test_the_last_page_writes_options_as_a_template_does():
    nodes = pages.done_page("B01", {"size": "<5'", "color": "é"}, 0.5)
    assert Node('{"color": "\\u00e9", "size": "\\u003c5\\u0027"}') in nodes
    assert pages.as_text(nodes).endswith("Your score (min 0.0, max 1.0) [SEP] 0.5 [SEP] Reward Details [SEP] None")
