// Package safetensors reads and writes model weights in the safetensors format, without trusting the file.
//
// A safetensors file is eight bytes of header length, a JSON header and the tensors' bytes end to end:
//
//	n       uint64, little endian
//	header  n bytes: {"__metadata__": {"k": "v"}, "name": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, …}
//	data    row-major, little endian; data_offsets count from the first byte after the header
//
// # Reading
//
// [Open] opens a model folder, whether it holds one model.safetensors or shards with an index; [OpenFile] opens one file.
// Both map the file into memory: [Tensor.Data] is a view of the page cache, nothing is copied, and pages that were
// used can be given back with Release. So a model is loaded without ever holding it twice:
//
//	ckpt, err := safetensors.Open(dir)
//	defer ckpt.Close()
//	for _, name := range ckpt.Names() {
//		t, _ := ckpt.Tensor(name)
//		upload(t.DType, t.Shape, t.Data)
//		ckpt.Release(name)
//	}
//
// [OpenHeader], [OpenHeaders] and [ReadHeader] read headers alone: names, dtypes and shapes, and no tensor bytes.
//
// # What is checked
//
// All of it is checked before a file is returned, and an error is a [FormatError] that names file and tensor, or an error
// of the operating system. The rules are those of the reference implementation (huggingface/safetensors, tensor.rs):
//
//   - the header is at most [MaxHeaderSize] bytes and ends inside the file;
//   - it is UTF-8, begins with '{' and is JSON as serde_json reads it: no trailing bytes but white space,
//     integers without sign, fraction or exponent, at most 127 levels deep;
//   - every tensor has a dtype of this package, a shape and data_offsets; unknown further fields are skipped;
//   - dims × bits does not overflow, is a whole number of bytes, and equals the length of data_offsets;
//   - the tensors, sorted by offset, cover the data from its first byte to the end of the file, without hole or overlap;
//   - zero-sized tensors and scalars are fine.
//
// Where the reference is laxer than the format's own text or than a program should be, this package is not:
//
//	                                                       reference 0.8.0    here
//	duplicate tensor name or __metadata__ key              last one wins      error
//	white space before '{'                                 accepted           error
//	a tensor entry written as an array                     accepted           error
//	a dimension above the largest int                      accepted if empty  error
//	more than [MaxRank] dimensions                         accepted           error
//	more than [MaxKeys] keys in one object                 accepted           error
//
// A header costs a small multiple of its own size in memory, whatever it holds (tested at the full 100 MB), and the
// claim of a large header in a small file costs nothing.
//
// # Shards and links
//
// The names in model.safetensors.index.json come from whoever made the model, so a shard must be a plain file name: no
// separators, nothing absolute, no "..". Symbolic links come from whoever made the folder, and they are followed: the
// Hugging Face cache consists of links to ../../blobs. What a name leads to must be a regular file.
// Index and shards must agree exactly, in both directions.
//
// # Lifetime of the mapping
//
// After Close, the methods of this package stay safe: Tensor reports false, Release does nothing. But a Tensor.Data that
// was kept is a view of memory that is gone, and touching it ends the process, as it does in C. Keep the file open for
// as long as its tensors are in use.
//
// The same holds if another process truncates the file while it is mapped: the kernel answers a read past the new end with
// SIGBUS. Nothing in the format can cause this, only a writer that changes model files in place (this package, the
// reference and the Hugging Face hub write a new file and rename it, which leaves a mapping intact). A library that turned on
// [runtime/debug.SetPanicOnFault] for its caller would hide real bugs, and could not help where C code reads the
// bytes. Who must survive it copies with [Tensor.CopyTo], which turns the fault into an error.
//
// On systems that are not Unix the file is read into memory instead of mapped; all else is the same.
package safetensors
