"""Which operators a graph may hold: functions of tensors and numbers in `aten`, and arithmetic of sizes.

No other namespace: custom operators are code that this process lacks, and higher-order operators hold graphs of
their own.  Those that `torch.no_grad` and autocast leave in an export go with `run_decompositions()`.
"""

import functools
import re
from typing import Any

import torch

from .refusal import HOW_TO_EXPORT, refuse, shown

_ATEN = re.compile(r"torch\.ops\.aten\.([A-Za-z_][A-Za-z0-9_]*)\.([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)

# Arithmetic of sizes, of torch._export.serde.serialize._SYM_OPS.  Shifts are missing: no export needs them.
_SIZES = frozenset(
    {f"_operator.{name}" for name in ("eq", "ne", "le", "ge", "lt", "gt", "neg", "pos", "mul", "add", "sub")}
    | {f"_operator.{name}" for name in ("floordiv", "mod", "pow", "truediv", "and_", "or_")}
    | {f"torch.sym_{name}" for name in ("not", "int", "float", "ite", "max", "min", "sqrt")}
    | {"math.trunc"}
)
# Of the operators that begin with an underscore, those that exports and decompositions make.
# fmt: off
_PRIVATE = frozenset({
    "__and__", "__iand__", "__ior__", "__ixor__", "__or__", "__xor__", "_adaptive_avg_pool2d",
    "_adaptive_avg_pool3d", "_assert_async", "_assert_scalar", "_assert_tensor_metadata",
    "_batch_norm_no_update", "_batch_norm_with_update", "_cdist_forward", "_conj", "_convolution",
    "_embedding_bag", "_fused_rms_norm", "_local_scalar_dense", "_log_softmax", "_masked_softmax",
    "_native_batch_norm_legit", "_native_batch_norm_legit_functional",
    "_native_batch_norm_legit_no_training", "_native_multi_head_attention", "_pdist_forward",
    "_prelu_kernel", "_reshape_alias", "_safe_softmax", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_flash_attention_for_cpu", "_shape_as_tensor", "_softmax", "_stack",
    "_to_copy", "_transformer_encoder_layer_fwd", "_trilinear", "_unsafe_index", "_unsafe_view",
    "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d", "_upsample_nearest_exact3d", "_weight_norm",
    "_weight_norm_interface",
})
# fmt: on
# Reads or writes files, changes what a tensor lies in, shows memory that nobody wrote, leaves the processor, or is
# of kinds of tensors that archives cannot hold.
_DENIED = re.compile(
    r"from_file|set|set_|set_data|data|save|warn|resize.*|record_stream|pin_memory|is_pinned|cuda|xpu"
    r"|empty.*|new_empty.*|storage.*|output_nr|retain_grad|requires_grad_|rename.*|align_.*|refine_names"
    r"|swap.*_|lstm_.*|quantize.*|.*(?:backward|quantiz|quantis|fbgemm|mkldnn|cudnn|miopen|sparse|nested|csr|csc"
    r"|bsr|bsc|coalesce|crow_|ccol_|col_indices|row_indices|to_dense|q_scale|q_zero|q_per|int_repr|names).*"
)
_ARGUMENTS = re.compile(
    r"(?:Optional\[|List\[)*(?:Tensor|int|float|bool|number|str|ScalarType|MemoryFormat|Layout|Device|Generator)\]*"
)


@functools.cache
def _aten_names() -> frozenset[str]:
    """Operators of the dispatcher; what TorchScript alone knows (aten::save) is not among them."""
    return frozenset(torch._C._dispatch_get_all_op_names())


@functools.lru_cache(maxsize=5000)
def arguments_of(target: str) -> tuple[str, ...] | None:
    """Names of the operator's arguments in its schema; None for arithmetic of sizes, which has no schema.

    Raises InvalidInput where a graph may not hold the operator; the caller adds where it stands.
    """
    if target in _SIZES:
        return None
    if target.startswith("torch.ops.higher_order."):
        raise refuse(
            "MODEL_OPERATOR",
            f"the operator {shown(target)} holds a graph of its own; run_decompositions() on the exported program "
            "removes those of torch.no_grad and autocast, others are not supported",
        )
    match = _ATEN.fullmatch(target)
    if match is None:
        raise refuse(
            "MODEL_OPERATOR",
            f"the operator {shown(target)} is not one of torch.ops.aten; "
            f"write it with ordinary operators of torch, and {HOW_TO_EXPORT}",
        )
    name, overload = match.groups()
    full = f"aten::{name}" if overload == "default" else f"aten::{name}.{overload}"
    private = name.startswith("_") and name not in _PRIVATE
    if private or _DENIED.fullmatch(name) or full not in _aten_names():
        raise refuse("MODEL_OPERATOR", f"the operator {shown(target)} is not supported")
    operator: Any = getattr(getattr(torch.ops.aten, name), overload)
    for argument in operator._schema.arguments:
        if argument.is_out or not _ARGUMENTS.fullmatch(str(argument.real_type)):
            raise refuse("MODEL_OPERATOR", f"the operator {shown(target)} is not supported")
    return tuple(argument.name for argument in operator._schema.arguments)
