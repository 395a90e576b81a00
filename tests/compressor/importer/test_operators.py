"""Operators against the node tests of the onnx package, which hold inputs and expected outputs."""

import re
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.case.node import collect_testcases

from flyweight.compressor.importer.checking import answers_of, relative_difference
from flyweight.compressor.importer.importing import build_module

NAMES = """
    abs add add_bcast argmax_keepdims_example argmax_keepdims_example_select_last_index
    argmin_no_keepdims_example attention_3d attention_4d_gqa averagepool_1d_default averagepool_2d_ceil
    averagepool_2d_pads averagepool_2d_pads_count_include_pad averagepool_2d_same_lower
    averagepool_2d_same_upper averagepool_3d_default basic_conv_with_padding batchnorm_example celu clip
    clip_default_min compress_0 concat_2d_axis_1 conv_with_autopad_same
    conv_with_strides_and_asymmetric_padding convtranspose convtranspose_1d convtranspose_autopad_same
    convtranspose_dilations convtranspose_output_shape convtranspose_pads cumsum_1d_reverse_exclusive
    cumsum_2d_axis_1 depthtospace_crd_mode_example depthtospace_example dropout_default_ratio edge_pad
    einsum_batch_diagonal elu equal erf expand_dim_changed expand_dim_unchanged eyelike_with_dtype
    flatten_axis0 flatten_axis2 flatten_negative_axis1 gather_0 gather_negative_indices
    gather_elements_negative_indices gathernd_example_float32 gathernd_example_int32_batch_dim1
    gelu_tanh_1 gelu_default_1 gemm_all_attributes gemm_default_vector_bias gemm_transposeA
    globalaveragepool globalmaxpool group_normalization_example gru_batchwise gru_defaults gru_seq_length
    hardmax_axis_1 hardsigmoid hardswish instancenorm_example isinf_positive l2normalization_axis_0
    layer_normalization_3d_axis1_epsilon layer_normalization_default_axis leakyrelu logsoftmax_axis_1
    lppool_2d_same_upper lrn lstm_batchwise lstm_bidirectional lstm_defaults lstm_with_peepholes
    matmul_4d max_example maxpool_1d_default maxpool_2d_ceil maxpool_2d_dilations maxpool_2d_pads
    maxpool_2d_same_lower mean_example min_example mish mod_mixed_sign_float32 mod_mixed_sign_int32 mvn
    nonzero_example not_2d onehot_negative_indices onehot_with_axis pow pow_types_float32_int64
    prelu_broadcast prelu_example range_float_type_positive_delta reduce_l1_keep_dims_example
    reduce_l2_do_not_keepdims_example reduce_log_sum_exp_keepdims_example reduce_max_keepdims_example
    reduce_mean_negative_axes_keepdims_example reduce_prod_keepdims_example
    reduce_sum_default_axes_keepdims_example reduce_sum_empty_axes_input_noop_example
    reduce_sum_square_do_not_keepdims_example reflect_pad reshape_allowzero_reordered
    reshape_negative_extended_dims reshape_zero_and_negative_dim resize_downsample_scales_nearest
    resize_downsample_sizes_linear_pytorch_half_pixel resize_upsample_scales_cubic
    resize_upsample_scales_linear resize_upsample_scales_linear_align_corners
    resize_upsample_scales_linear_half_pixel_symmetric resize_upsample_sizes_cubic
    resize_upsample_sizes_nearest_ceil_half_pixel resize_upsample_sizes_nearest_floor_align_corners
    resize_upsample_sizes_nearest_round_prefer_ceil_asymmetric reversesequence_batch reversesequence_time
    rms_normalization_default_axis rnn_seq_length scatter_elements_with_negative_indices scatternd
    scatternd_add selu shape_start_1_end_negative_1 shrink_soft simple_rnn_batchwise sin slice_neg
    slice_neg_steps slice_negative_axes slice_start_out_of_bounds softmax_axis_0 softplus softsign
    spacetodepth_example split_equal_parts_1d_opset18 split_variable_parts_2d_opset13 squeeze
    squeeze_negative_axes sum_example thresholdedrelu tile top_k top_k_same_values
    transpose_all_permutations_3 tril_neg triu upsample_nearest unsqueeze_three_axes where_example
    wrap_pad xor3d
"""
SELECTED = NAMES.split()


@cache
def cases() -> dict[str, Any]:
    with warnings.catch_warnings():
        # The onnx package's own examples divide by zero on purpose.
        warnings.simplefilter("ignore")
        return {case.name.removeprefix("test_"): case for case in collect_testcases(None)}  # type: ignore[no-untyped-call]


def compare(model: onnx.ModelProto, inputs: list[np.ndarray], outputs: list[np.ndarray], path: Path) -> None:
    onnx.save(model, path)
    names = [value.name for value in model.graph.input]
    module = build_module(path, dict(zip(names, inputs, strict=True)))
    for found, wanted in zip(answers_of(module, path, inputs), outputs, strict=True):
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
        if wanted.dtype.kind == "f":
            assert relative_difference(wanted, found) <= 1e-5
        else:
            np.testing.assert_array_equal(found, wanted)


def stored(model: onnx.ModelProto, inputs: list[np.ndarray]) -> onnx.ModelProto:
    """Return the model with all inputs but the first as weights."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for value, array in list(zip(changed.graph.input, inputs, strict=True))[1:]:
        changed.graph.initializer.append(numpy_helper.from_array(array, value.name))
    del changed.graph.input[1:]
    return changed


@pytest.mark.parametrize("name", SELECTED)
def test_the_expected_outputs_are_reached(name: str, tmp_path: Path) -> None:
    case = cases()[name]
    inputs, outputs = ([np.asarray(array) for array in arrays] for arrays in case.data_sets[0])
    if len(inputs) == 1 or name.startswith(("range", "where")):
        compare(case.model, inputs, outputs, tmp_path / "model.onnx")
    else:
        compare(stored(case.model, inputs), inputs[:1], outputs, tmp_path / "model.onnx")


@pytest.mark.parametrize(
    "name", ["add_bcast", "basic_conv_with_padding", "gemm_all_attributes", "matmul_3d", "where_example"]
)
def test_weights_that_are_inputs_reach_the_expected_outputs(name: str, tmp_path: Path) -> None:
    case = cases()[name]
    inputs, outputs = ([np.asarray(array) for array in arrays] for arrays in case.data_sets[0])
    compare(case.model, inputs, outputs, tmp_path / "model.onnx")


def test_the_list_names_each_test_once() -> None:
    assert len(SELECTED) == len(set(SELECTED))
    assert all(re.fullmatch(r"\w+", name) for name in SELECTED)
