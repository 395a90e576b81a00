"""Search: ask for an outcome, and get the recipes that reach it.

`Budget.parse(text)` reads what is asked, `search(...)` looks for recipes on the Pareto front of latency, size
and quality that meet it. Needs the extra `search`.
"""

from flyweight.compressor.search.budget import Budget
from flyweight.compressor.search.figures import Figures, figures_of
from flyweight.compressor.search.space import Choice, Gene, Space, Step

__all__ = ["Budget", "Choice", "Figures", "Gene", "Space", "Step", "figures_of"]
