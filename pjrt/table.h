// The C half of our PJRT function table: open a plugin, copy its table, and put Go functions in four places of it.
#ifndef STEERAGE_PJRT_TABLE_H_
#define STEERAGE_PJRT_TABLE_H_

#include "pjrt_c_api.h"

// Plugins one process may have open. A table's functions get no context argument, so each plugin needs its own set.
#define STEERAGE_MAX_PLUGINS 8

// The smallest table that holds every function that go-xla and this package call.
#define STEERAGE_MIN_TABLE \
  (offsetof(PJRT_Api, PJRT_Executable_GetCompiledMemoryStats) + sizeof(void*))

// steerage_dlopen returns the plugin's own table. On failure it returns NULL and *error is a malloc'd message.
const PJRT_Api* steerage_dlopen(const char* path, char** error);

// steerage_preload opens a library for good, if it can.
void steerage_preload(const char* path);

// steerage_wrap returns a malloc'd copy of api for plugin number slot, zero-filled up to this header's size, whose
// Client_Create, Client_Destroy and Client_Compile call the Go functions below. It lives as long as the process.
PJRT_Api* steerage_wrap(int slot, const PJRT_Api* api);

// The plugin's own functions, for Go to call: cgo cannot call through a function pointer.
PJRT_Error* steerage_create(const PJRT_Api* api, PJRT_Client_Create_Args* args);
PJRT_Error* steerage_destroy(const PJRT_Api* api, PJRT_Client_Destroy_Args* args);
PJRT_Error* steerage_compile(const PJRT_Api* api, PJRT_Client_Compile_Args* args);

// steerage_compile_as compiles the program text with the client and options of args; args->executable is set.
// args->program itself belongs to the caller and is left as it is.
PJRT_Error* steerage_compile_as(const PJRT_Api* api, PJRT_Client_Compile_Args* args, const char* format,
                                size_t format_size, const char* code, size_t code_size);

// The calls below return NULL or a malloc'd error message; the PJRT_Error is destroyed.

// steerage_serialize gives the bytes of a loaded executable, malloc'd.
char* steerage_serialize(const PJRT_Api* api, PJRT_LoadedExecutable* loaded, char** bytes, size_t* size);

// steerage_deserialize loads what steerage_serialize wrote.
char* steerage_deserialize(const PJRT_Api* api, PJRT_Client* client, const char* bytes, size_t size,
                           PJRT_LoadedExecutable** loaded);

// steerage_platform gives the client's platform name and version, malloc'd.
char* steerage_platform(const PJRT_Api* api, PJRT_Client* client, char** name, char** version);

// steerage_devices gives the client's addressable devices; the array is the client's.
char* steerage_devices(const PJRT_Api* api, PJRT_Client* client, PJRT_Device* const** devices, size_t* n);

// steerage_device_kind gives the device's kind ("cpu", "NVIDIA H100 80GB HBM3"), malloc'd.
char* steerage_device_kind(const PJRT_Api* api, PJRT_Device* device, char** kind);

// steerage_device_memory gives bytes in use, their peak and the limit; -1 where the plugin does not say.
char* steerage_device_memory(const PJRT_Api* api, PJRT_Device* device, int64_t* in_use, int64_t* peak, int64_t* limit);

#endif  // STEERAGE_PJRT_TABLE_H_
