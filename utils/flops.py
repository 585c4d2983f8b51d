"""Floating-point operations of a traced program, loops included.

XLA's own analysis counts the body of a loop once, however often it runs.
"""

import math
from typing import Any

import jax
from jax.extend import core


def matmul_flops(function: Any, *arguments: Any) -> float:
    """Count the operations of a function's matrix products and convolutions.

    A product of (m, k) and (k, n) has 2 m k n. A loop whose number of rounds is only known when it
    runs counts once, and a choice counts its dearest branch.

    Args:
        function: What is traced; nothing is computed.
        *arguments: Arrays, or their shapes and types.
    """
    return _flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def _flops(jaxpr: core.Jaxpr) -> float:
    return sum(map(_flops_of, jaxpr.eqns))


def _flops_of(equation: core.JaxprEqn) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        shape = equation.invars[0].aval.shape
        return 2.0 * _size(equation) * math.prod(shape[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[params["dimension_numbers"].rhs_spec[0]]
        return 2.0 * _size(equation) * math.prod(kernel) / outputs
    inner = [_flops(jaxpr) for jaxpr in core.jaxprs_in_params(params)]
    if name == "cond":
        return max(inner)
    return params.get("length", 1) * sum(inner) if name == "scan" else sum(inner)


def _size(equation: core.JaxprEqn) -> int:
    return math.prod(equation.outvars[0].aval.shape)
