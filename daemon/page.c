#include "page.h"

/* clang-format off */
__asm__(".section .rodata\n"
        ".globl page_html\n.globl page_html_end\n"
        "page_html:\n.incbin \"daemon/page.html\"\n"
        "page_html_end:\n.byte 0\n"
        ".previous\n");
/* clang-format on */
