// Package pjrt finds, fetches and opens XLA's PJRT plugins as GoMLX backends.
//
// A PJRT plugin is one shared library that compiles and runs StableHLO programs on one kind of device. Search looks for
// plugins, Setup fetches a pinned one, Open opens one, and Select (or Backend) does all that a program needs: from
// "xla", "xla:cuda", "xla:/path/to/plugin.so" or "go" to an open compute.Backend, and a Choice that says why that one.
//
//	backend, choice, err := pjrt.Backend("")
//	if err != nil { … }
//	defer backend.Finalize()
//	log.Print(choice) // backend xla-cpu: 1 device (cpu), plugin 0.0.1, PJRT API 0.81: no NVIDIA device; …
//
// # The table between
//
// go-xla, GoMLX's binding of PJRT, calls a plugin through a table of functions. Open gives it a copy of that table in
// which Client_Compile is ours, and adds two things that go-xla does not have.
//
// Aliasing. A parameter of the main function that is named
//
//	alias_K__anything
//
// shares its memory with result K, counted from 0, if the caller donates it (graph.DonateTensorBuffer): the program
// updates it in place instead of copying it. Type and shape must be the result's; otherwise compiling fails with an
// error that names the parameter. A parameter that is not donated is copied by XLA first, so its caller never sees it
// change. This is how a KV cache of gigabytes costs one row per token. graph.NewExec names parameters itself, so such
// programs are built with graph.NewGraph, graph.Parameter and Graph.Compile.
//
// A compile cache. Compiled programs are kept in steerage/xla in the user's cache folder and loaded from there in the
// next process. An entry's name is a hash over the program, the compile options, the plugin, the devices, the
// machine's processor and XLA_FLAGS; its content is checked against its own hash. The folder must be the user's and
// closed to the others' writing, since what is in it is run. STEERAGE_COMPILE_CACHE=off switches it off.
//
// ReadStats counts compilations, hits and aliases, and Options.OnCompile is told of each.
//
// # Where plugins are
//
// Setup unpacks to steerage/pjrt/<kind>/<version>-<hash> in the user's cache folder ($XDG_CACHE_HOME or ~/.cache): 260 MB
// for cpu; 3.6 GB for cuda, which are the plugin and NVIDIA's libraries. A CUDA plugin needs NVIDIA's driver besides.
// Search looks there first, then for an installed wheel (xla-cpu-pjrt, jax-cuda13-pjrt, jax-cuda12-pjrt) in
// $VIRTUAL_ENV, $CONDA_PREFIX and what `python3` names. Nothing but Setup ever uses the network.
//
// Without cgo, outside Linux or with the build tag noxla the same functions exist, Enabled is false, Open is an error
// and Select gives the Go backend.
package pjrt
