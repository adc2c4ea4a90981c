"""Python runs this first in every process that finds it (`slim.EVERYWHERE`): thin networks."""

import functools

import dabench_models
from dabench_models import registry


def _thin(build):
    @functools.wraps(build)
    def made(*arguments, **options):
        # Not before torch is imported anyway.
        from slim import slim

        with slim():
            return build(*arguments, **options)

    return made


dabench_models.build = registry.build = _thin(registry.build)
