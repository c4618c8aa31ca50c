"""WebShop: buying a product that fits an instruction in a simulated shop, played in this process without a web server."""

from agentdistill.envs.webshop.env import WebShopEnv
from agentdistill.envs.webshop.official import import_official

__all__ = ["WebShopEnv", "import_official"]
