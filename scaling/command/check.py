"""`--check`: one small question to each model of a study."""

from __future__ import annotations

from scaling.command.local_models import at_address, serving
from scaling.command.options import Options, checked_options
from scaling.command.prepare import models_named, registry_of
from scaling.llm.check import print_check
from scaling.planning.plan import Benchmarks, check_count, expand
from scaling.planning.study import Study


def check_models(study: Study, options: Options, benchmarks: Benchmarks) -> bool:
    """Ask each model of the study one small question and print how it went; whether all are ready."""
    options = checked_options(options)
    registry = registry_of(study, options)
    check_count(study, registry, options.many_cells)
    cells = expand(study, benchmarks, registry, options.api_base)
    models = list(models_named(cells, registry, options).values())
    with serving(models) as addresses:
        return print_check([at_address(model, addresses) for model in models], options.timeout)
