"""`--check`: one small question to each model of a study."""

from __future__ import annotations

from scaling.command.local_models import at_address, serving
from scaling.command.options import Options, checked_options
from scaling.command.prepare import registry_of
from scaling.llm.check import print_check
from scaling.llm.weights import located
from scaling.models import find_model
from scaling.planning.plan import Benchmarks, check_count, expand
from scaling.planning.study import Study


def check_models(study: Study, options: Options, benchmarks: Benchmarks) -> bool:
    """Ask each model of the study one small question and print how it went; whether all are ready."""
    options = checked_options(options)
    registry = registry_of(study, options)
    check_count(study, registry, options.many_cells)
    cells = expand(study, benchmarks, registry, options.api_base)
    names = sorted({name for cell in cells for name in (cell.model, cell.optimizer_model)})
    models = [located(find_model(name, registry, options.api_base), options.models_dir) for name in names]
    with serving(models) as addresses:
        return print_check([at_address(model, addresses) for model in models], options.timeout)
