/* All kernels of the plug-in: one file of code for the device. */
#include "attention.cuh"
#include "attend.cuh"
#include "elementwise.cuh"
/* These activate. */
#include "depthwise.cuh"
#include "half.cuh"
#include "index.cuh"
#include "move.cuh"
#include "norm.cuh"
#include "product.cuh"
#include "reduce.cuh"
#include "rnn.cuh"
#include "rows.cuh"
#include "scan.cuh"
#include "window.cuh"
/* These use the windows. */
#include "bytes.cuh"
#include "sample.cuh"
