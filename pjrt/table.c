//go:build cgo && linux && !noxla

#include "table.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

// Written in Go (table.go).
extern PJRT_Error* steerageClientCreate(int slot, PJRT_Client_Create_Args* args);
extern PJRT_Error* steerageClientDestroy(int slot, PJRT_Client_Destroy_Args* args);
extern PJRT_Error* steerageClientCompile(int slot, PJRT_Client_Compile_Args* args);

#define SLOT(n)                                                                                                     \
  static PJRT_Error* create_##n(PJRT_Client_Create_Args* args) { return steerageClientCreate(n, args); }            \
  static PJRT_Error* destroy_##n(PJRT_Client_Destroy_Args* args) { return steerageClientDestroy(n, args); }         \
  static PJRT_Error* compile_##n(PJRT_Client_Compile_Args* args) { return steerageClientCompile(n, args); }
SLOT(0)
SLOT(1)
SLOT(2)
SLOT(3)
SLOT(4)
SLOT(5)
SLOT(6)
SLOT(7)

static PJRT_Client_Create* const creates[STEERAGE_MAX_PLUGINS] = {create_0, create_1, create_2, create_3,
                                                                  create_4, create_5, create_6, create_7};
static PJRT_Client_Destroy* const destroys[STEERAGE_MAX_PLUGINS] = {destroy_0, destroy_1, destroy_2, destroy_3,
                                                                    destroy_4, destroy_5, destroy_6, destroy_7};
static PJRT_Client_Compile* const compiles[STEERAGE_MAX_PLUGINS] = {compile_0, compile_1, compile_2, compile_3,
                                                                    compile_4, compile_5, compile_6, compile_7};

const PJRT_Api* steerage_dlopen(const char* path, char** error) {
  // NOW: a symbol that the machine lacks is an error here, not a crash in the middle of a run.
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) {
    const char* why = dlerror();
    *error = strdup(why != NULL ? why : "dlopen failed");
    return NULL;
  }
  const PJRT_Api* (*get)(void) = (const PJRT_Api* (*)(void))dlsym(handle, "GetPjrtApi");
  if (get == NULL) {
    *error = strdup("it has no function GetPjrtApi: it is a library, but not a PJRT plugin");
    dlclose(handle);
    return NULL;
  }
  const PJRT_Api* api = get();
  if (api == NULL) *error = strdup("its GetPjrtApi returned NULL");
  return api;  // The handle stays open: a plugin's threads outlive its clients.
}

void steerage_preload(const char* path) { dlopen(path, RTLD_LAZY | RTLD_LOCAL); }

PJRT_Api* steerage_wrap(int slot, const PJRT_Api* api) {
  size_t size = api->struct_size > sizeof(PJRT_Api) ? api->struct_size : sizeof(PJRT_Api);
  PJRT_Api* table = calloc(1, size);
  if (table == NULL) return NULL;
  memcpy(table, api, api->struct_size);
  table->PJRT_Client_Create = creates[slot];
  table->PJRT_Client_Destroy = destroys[slot];
  table->PJRT_Client_Compile = compiles[slot];
  return table;
}

PJRT_Error* steerage_create(const PJRT_Api* api, PJRT_Client_Create_Args* args) {
  return api->PJRT_Client_Create(args);
}
PJRT_Error* steerage_destroy(const PJRT_Api* api, PJRT_Client_Destroy_Args* args) {
  return api->PJRT_Client_Destroy(args);
}
PJRT_Error* steerage_compile(const PJRT_Api* api, PJRT_Client_Compile_Args* args) {
  return api->PJRT_Client_Compile(args);
}

PJRT_Error* steerage_compile_as(const PJRT_Api* api, PJRT_Client_Compile_Args* args, const char* format,
                                size_t format_size, const char* code, size_t code_size) {
  PJRT_Program program = *args->program;
  program.format = format;
  program.format_size = format_size;
  program.code = (char*)code;
  program.code_size = code_size;
  PJRT_Client_Compile_Args copy = *args;
  copy.program = &program;
  PJRT_Error* error = api->PJRT_Client_Compile(&copy);
  args->executable = copy.executable;
  return error;
}

// copy_string returns a malloc'd, NUL-terminated copy.
static char* copy_string(const char* s, size_t n) {
  char* out = malloc(n + 1);
  if (out == NULL) abort();
  if (n > 0) memcpy(out, s, n);
  out[n] = 0;
  return out;
}

// message turns a PJRT_Error into a malloc'd string and destroys it; NULL stays NULL.
static char* message(const PJRT_Api* api, PJRT_Error* error) {
  if (error == NULL) return NULL;
  PJRT_Error_Message_Args m = {.struct_size = PJRT_Error_Message_Args_STRUCT_SIZE, .error = error};
  api->PJRT_Error_Message(&m);
  char* out = copy_string(m.message, m.message_size);
  PJRT_Error_Destroy_Args d = {.struct_size = PJRT_Error_Destroy_Args_STRUCT_SIZE, .error = error};
  api->PJRT_Error_Destroy(&d);
  return out;
}

char* steerage_serialize(const PJRT_Api* api, PJRT_LoadedExecutable* loaded, char** bytes, size_t* size) {
  PJRT_LoadedExecutable_GetExecutable_Args get = {
      .struct_size = PJRT_LoadedExecutable_GetExecutable_Args_STRUCT_SIZE, .loaded_executable = loaded};
  char* error = message(api, api->PJRT_LoadedExecutable_GetExecutable(&get));
  if (error != NULL) return error;

  PJRT_Executable_Serialize_Args s = {.struct_size = PJRT_Executable_Serialize_Args_STRUCT_SIZE,
                                      .executable = get.executable};
  error = message(api, api->PJRT_Executable_Serialize(&s));
  if (error == NULL) {
    *bytes = copy_string(s.serialized_bytes, s.serialized_bytes_size);
    *size = s.serialized_bytes_size;
    s.serialized_executable_deleter(s.serialized_executable);
  }
  PJRT_Executable_Destroy_Args d = {.struct_size = PJRT_Executable_Destroy_Args_STRUCT_SIZE,
                                    .executable = get.executable};
  free(message(api, api->PJRT_Executable_Destroy(&d)));
  return error;
}

char* steerage_deserialize(const PJRT_Api* api, PJRT_Client* client, const char* bytes, size_t size,
                           PJRT_LoadedExecutable** loaded) {
  PJRT_Executable_DeserializeAndLoad_Args a = {.struct_size = PJRT_Executable_DeserializeAndLoad_Args_STRUCT_SIZE,
                                               .client = client,
                                               .serialized_executable = bytes,
                                               .serialized_executable_size = size};
  char* error = message(api, api->PJRT_Executable_DeserializeAndLoad(&a));
  *loaded = a.loaded_executable;
  return error;
}

char* steerage_platform(const PJRT_Api* api, PJRT_Client* client, char** name, char** version) {
  PJRT_Client_PlatformName_Args n = {.struct_size = PJRT_Client_PlatformName_Args_STRUCT_SIZE, .client = client};
  char* error = message(api, api->PJRT_Client_PlatformName(&n));
  if (error != NULL) return error;
  PJRT_Client_PlatformVersion_Args v = {.struct_size = PJRT_Client_PlatformVersion_Args_STRUCT_SIZE,
                                        .client = client};
  error = message(api, api->PJRT_Client_PlatformVersion(&v));
  if (error != NULL) return error;
  *name = copy_string(n.platform_name, n.platform_name_size);
  *version = copy_string(v.platform_version, v.platform_version_size);
  return NULL;
}

char* steerage_devices(const PJRT_Api* api, PJRT_Client* client, PJRT_Device* const** devices, size_t* n) {
  PJRT_Client_AddressableDevices_Args a = {.struct_size = PJRT_Client_AddressableDevices_Args_STRUCT_SIZE,
                                           .client = client};
  char* error = message(api, api->PJRT_Client_AddressableDevices(&a));
  if (error != NULL) return error;
  *devices = a.addressable_devices;
  *n = a.num_addressable_devices;
  return NULL;
}

char* steerage_device_kind(const PJRT_Api* api, PJRT_Device* device, char** kind) {
  PJRT_Device_GetDescription_Args g = {.struct_size = PJRT_Device_GetDescription_Args_STRUCT_SIZE, .device = device};
  char* error = message(api, api->PJRT_Device_GetDescription(&g));
  if (error != NULL) return error;
  PJRT_DeviceDescription_Kind_Args k = {.struct_size = PJRT_DeviceDescription_Kind_Args_STRUCT_SIZE,
                                        .device_description = g.device_description};
  error = message(api, api->PJRT_DeviceDescription_Kind(&k));
  if (error != NULL) return error;
  *kind = copy_string(k.device_kind, k.device_kind_size);
  return NULL;
}

char* steerage_device_memory(const PJRT_Api* api, PJRT_Device* device, int64_t* in_use, int64_t* peak, int64_t* limit) {
  PJRT_Device_MemoryStats_Args m = {.struct_size = PJRT_Device_MemoryStats_Args_STRUCT_SIZE, .device = device};
  char* error = message(api, api->PJRT_Device_MemoryStats(&m));
  if (error != NULL) return error;
  *in_use = m.bytes_in_use;
  *peak = m.peak_bytes_in_use_is_set ? m.peak_bytes_in_use : -1;
  *limit = m.bytes_limit_is_set ? m.bytes_limit : -1;
  return NULL;
}
