/* A plug-in of another time: only its ABI number is read. */
#include <gpulet/backend.h>

__attribute__((visibility("default"))) extern const struct backend gpulet_backend;
const struct backend gpulet_backend = {.name = "cuda", .abi = BACKEND_ABI + 1000};
