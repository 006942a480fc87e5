package pjrt

import (
	"path"
	"strings"
)

// wheel is one pinned file of the Python package index. Hashes are pip's --hash: what was tested is what is fetched.
type wheel struct {
	name, version string
	sha256        string // of the wheel
	plugin        string // the plugin inside the wheel; "" for a wheel of NVIDIA's libraries
}

// wheels are what `setup` fetches for each kind: the plugin first, then the libraries that it needs.
// All are for linux/amd64 (manylinux_2_27: glibc 2.27 or newer).
var wheels = map[string][]wheel{
	"cpu": {{
		name: "xla-cpu-pjrt", version: "0.0.1",
		sha256: "55837b6b7b47daa717f2d9a5a03563ea0ceaa338d06a81a1e2d3f060d960decc",
		plugin: "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so",
	}},
	// What `pip install jax-cuda13-plugin[with-cuda]==0.12.0.1` resolves to, without what only Python or a compiler
	// of CUDA sources needs. The plugin looks for the libraries at ../../nvidia, as in site-packages.
	"cuda": {
		{
			name: "jax-cuda13-pjrt", version: "0.12.0.1",
			sha256: "5899bb6177eda86ea532afb9a26794f2bdd04966f6a01f9028266b16c2b6cf90",
			plugin: "jax_plugins/xla_cuda13/xla_cuda_plugin.so",
		},
		{name: "nvidia-cublas", version: "13.10.0.20",
			sha256: "dcc6d63884c53d07e267ce7e6feac17b2538cebaafec5db865736c3e28e4dc84"},
		{name: "nvidia-cuda-cupti", version: "13.5.25",
			sha256: "9dcca41c12a734192b14e7128ae116bc9ce1b9da686e2ebf48ae7a4415f76650"},
		{name: "nvidia-cuda-nvcc", version: "13.5.37",
			sha256: "f5c4f7ead5d964fb4af42bbf1e6d3ec3c1e6e9d83b53749f691d387e7fcaa3a7"},
		{name: "nvidia-cuda-nvrtc", version: "13.5.37",
			sha256: "86b4d68058807988b7d9af5b44917a0601e9c337f35ccd657bfb3c759ff8d8bc"},
		{name: "nvidia-cuda-runtime", version: "13.5.37",
			sha256: "df2b79a8852f10d1fef8c848489c49eebb5754051bf870202a862831412b179d"},
		{name: "nvidia-cudnn-cu13", version: "9.28.1.4",
			sha256: "a54f205b1db1f2895d99f398754db1369816f0569dd459731f925635cf7b65ec"},
		{name: "nvidia-cufft", version: "12.5.0.14",
			sha256: "b8be26837a5abad2b5b74f3e92dd29f622a42934b355be0961a48712cbba23ad"},
		{name: "nvidia-cusolver", version: "12.4.1.2",
			sha256: "b3b8e02fd2f2df869369af075dc3a179d43f6f7b85e94632a7dce556697be044"},
		{name: "nvidia-cusparse", version: "12.9.4.2",
			sha256: "072667e58c851a318738f5527a12eb225cbf058803f2ea451c722d8cf8edddec"},
		{name: "nvidia-nccl-cu13", version: "2.32.3",
			sha256: "1459723080ac889d73a26edfa3e04383a7928ab31ac8f0ec43b3ea9548b04ff3"},
		{name: "nvidia-nvjitlink", version: "13.5.37",
			sha256: "280d7cb9649704145f074b8dbde500de04ce02d0872e066e20a83c17bcaa93eb"},
		{name: "nvidia-nvshmem-cu13", version: "3.8.0",
			sha256: "81a4d1f666543e6d34df6d2ff940c7da1435e34e186aab6f3c2b48861b64ef38"},
		{name: "nvidia-nvvm", version: "13.5.37",
			sha256: "c41bfa362e407405163f103c2229f0765f8cc2ed7d148b754dc77f228bf7e070"},
	},
}

// inWheel is where an installed package keeps its plugin, below site-packages, for each kind; the newest CUDA first.
var inWheel = map[string][]struct{ name, path string }{
	"cpu": {{"xla_cpu_pjrt", "xla_plugins/xla_cpu_pjrt/xla_cpu_pjrt.so"}},
	"cuda": {
		{"jax_cuda13_pjrt", "jax_plugins/xla_cuda13/xla_cuda_plugin.so"},
		{"jax_cuda12_pjrt", "jax_plugins/xla_cuda12/xla_cuda_plugin.so"},
	},
}

// folderOf names the folder of an unpacked wheel: its version and the beginning of its hash.
func folderOf(w wheel) string { return w.version + "-" + w.sha256[:12] }

// wants reports whether an entry of the wheel is to be unpacked.
func (w wheel) wants(entry string) bool {
	if w.plugin != "" {
		return entry == w.plugin
	}
	dir, file := path.Split(entry)
	if !strings.HasPrefix(dir, "nvidia/") || file == "" {
		return false
	}
	return strings.Contains(file, ".so") || strings.HasSuffix(dir, "/bin/") || strings.HasSuffix(dir, "/nvvm/libdevice/")
}
