/* The product of a warp's tensor cores, mma.m16n8k16 of the PTX manual, on the host. */
#pragma once

/* From what all lanes tell, as the manual says who has which element. */
template <typename T>
DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const uint32_t(*all)[8] = warp_tell(mine, 6);
    unsigned lane = threadIdx.x % 32;

    for (unsigned i = 0; i < 4; i++) {
        unsigned row = lane / 4 + i / 2 * 8, col = lane % 4 * 2 + i % 2;
        for (unsigned k = 0; k < 16; k++) {
            uint32_t x = all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
            uint32_t y = all[col * 4 + k % 8 / 2][4 + k / 8];
            c[i] += number(T{(uint16_t)(x >> k % 2 * 16)}) * number(T{(uint16_t)(y >> k % 2 * 16)});
        }
    }
}
