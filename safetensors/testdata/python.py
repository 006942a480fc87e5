"""Writes python.safetensors with the reference implementation (safetensors 0.8.0, numpy 2.4).

    pip install safetensors==0.8.0 numpy && python python.py
"""
import numpy as np
from safetensors import TensorSpec, serialize_file

arrays = [
    ("b.bool", "bool", np.array([True, False, True])),
    ("f4", "float4_e2m1fn_x2", np.array([0x21, 0x43], np.uint8)),
    ("u8", "uint8", np.arange(3, dtype=np.uint8)),
    ("i8", "int8", np.arange(-1, 2, dtype=np.int8)),
    ("f8.e5m2", "float8_e5m2", np.array([0x3C], np.uint8)),
    ("f8.e4m3", "float8_e4m3fn", np.array([0x38], np.uint8)),
    ("f8.e8m0", "float8_e8m0fnu", np.array([0x7F], np.uint8)),
    ("f8.e4m3fnuz", "float8_e4m3fnuz", np.array([0x40], np.uint8)),
    ("f8.e5m2fnuz", "float8_e5m2fnuz", np.array([0x40], np.uint8)),
    ("i16", "int16", np.array([[-2], [2]], np.int16)),
    ("u16", "uint16", np.array([65535], np.uint16)),
    ("f16", "float16", np.array([1, 0.5], np.float16)),
    ("bf16", "bfloat16", np.array([0x3F80, 0xC000], np.uint16)),
    ("i32", "int32", np.array([-3], np.int32)),
    ("u32", "uint32", np.array([3], np.uint32)),
    ("f32.scalar", "float32", np.array(1.5, np.float32)),
    ("f32.empty", "float32", np.zeros((2, 0, 3), np.float32)),
    ("f32", "float32", np.arange(6, dtype=np.float32).reshape(2, 3)),
    ("c64", "complex64", np.array([1 + 2j], np.complex64)),
    ("f64", "float64", np.array([-0.25], np.float64)),
    ("i64", "int64", np.array([1 << 40], np.int64)),
    ("u64", "uint64", np.array([(1 << 64) - 1], np.uint64)),
    ('"\\/\b\f\n\r\t\x01\x7f<>& é \u2028 😀', "uint8", np.array([7], np.uint8)),
]
# The library doubles the last dimension of F4, whose bytes hold two elements each.
spec = {
    name: TensorSpec(dtype=dtype, shape=list(a.shape), data_ptr=a.ctypes.data, data_len=a.nbytes)
    for name, dtype, a in arrays
}
serialize_file(spec, "python.safetensors", {"format": "pt"})
