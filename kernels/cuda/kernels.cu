/* All kernels of the plug-in: one file of code for the device. */
#include "elementwise.cuh"
#include "half.cuh"
#include "move.cuh"
#include "norm.cuh"
#include "product.cuh"
#include "reduce.cuh"
#include "window.cuh"
