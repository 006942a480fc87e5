"""Writes control_vector.gguf with the gguf package, as repeng does (pip install gguf==0.19.0)."""

import sys

import gguf
import numpy as np

writer = gguf.GGUFWriter(sys.argv[1], "controlvector")
writer.add_string("controlvector.model_hint", "some/model")
writer.add_uint32("controlvector.layer_count", 3)
for layer, direction in {1: [2, 0, 0, 0], 2: [np.float32(0.6) * 3.0, np.float32(0.8) * 3.0, 0, 0], 4: [2, -2, 2, 2]}.items():
    writer.add_tensor(f"direction.{layer}", np.array(direction, dtype=np.float32))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
