/* The live page at / on the admin port: page.html, embedded by the assembler (page.c). */
#pragma once

extern const char page_html[], page_html_end[];
