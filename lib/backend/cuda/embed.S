/* The kernels' code as bytes.  FATBIN is its file. */
    .section .rodata
    .balign 16
    .globl gpu_fatbin
    .hidden gpu_fatbin
gpu_fatbin:
    .incbin FATBIN
    .section .note.GNU-stack, "", @progbits
