"""The scenarios: importing this package imports every module in it, and so registers them all.

`list` names them in the order of their modules' names.
"""

import importlib
import pkgutil

for _module in sorted(found.name for found in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
