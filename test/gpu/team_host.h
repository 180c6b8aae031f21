/* Threads of a block that wait for each other, on the host: each is a coroutine, which runs until
 * it waits for its warp or its block.  Whoever waits for somebody who has ended or waits for
 * something else ends the process: a device would hang, or read rubbish.
 *
 * What is not shown: races, as only one thread runs at a time, from one waiting to the next. */
#pragma once

#include <sys/mman.h>
#include <ucontext.h>
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#define TEAM_MOST 256 /* threads */
#define TEAM_STACK (256u << 10)

enum team_state { TEAM_RUNS, TEAM_AT_WARP, TEAM_AT_BLOCK, TEAM_ENDED };
struct team {
    ucontext_t back, at[TEAM_MOST];
    team_state state[TEAM_MOST];
    unsigned turn[TEAM_MOST];       /* of the two halves of `word` */
    uint32_t word[2][TEAM_MOST][8]; /* what a thread tells its warp */
    unsigned n, now;
    char *stacks;
    void (*fn)(const void *args);
    const void *args;
};
static thread_local struct team *team;

/* ---- switching; the thread sanitizer wants to be told */
#if defined(__SANITIZE_THREAD__)
static thread_local void *team_fiber[TEAM_MOST], *team_main;
static inline void team_told(void *to)
{
    __tsan_switch_to_fiber(to, 0);
}
static inline void team_told_thread(unsigned i)
{
    if (!team_fiber[i])
        team_fiber[i] = __tsan_create_fiber(0);
    team_main = __tsan_get_current_fiber();
    team_told(team_fiber[i]);
}
static inline void team_told_back(void)
{
    team_told(team_main);
}
#else
static inline void team_told_thread(unsigned)
{
}
static inline void team_told_back(void)
{
}
#endif

static inline void team_leave(team_state s)
{
    unsigned i = team->now;

    team->state[i] = s;
    team_told_back();
    (void)swapcontext(&team->at[i], &team->back);
}

static inline void team_thread(void)
{
    team->fn(team->args);
    team_leave(TEAM_ENDED);
}

static inline void team_enter(unsigned i)
{
    team->now = threadIdx.x = i;
    team_told_thread(i);
    (void)swapcontext(&team->back, &team->at[i]);
}

/* Whether threads [from, to) all wait for this; then they go on. */
static inline bool team_release(unsigned from, unsigned to, team_state s)
{
    for (unsigned i = from; i < to; i++)
        if (team->state[i] != s)
            return false;
    for (unsigned i = from; i < to; i++)
        team->state[i] = TEAM_RUNS;
    return true;
}

static inline bool team_step(void)
{
    bool moved = false;

    for (unsigned i = 0; i < team->n; i++)
        if (team->state[i] == TEAM_RUNS) {
            team_enter(i);
            moved = true;
        }
    for (unsigned i = 0; i < team->n; i += 32)
        moved |= team_release(i, i + 32, TEAM_AT_WARP);
    return moved | team_release(0, team->n, TEAM_AT_BLOCK);
}

static __attribute__((noinline)) void team_prepare(unsigned i)
{
    ucontext_t *at = &team->at[i];

    (void)getcontext(at);
    at->uc_stack.ss_sp = team->stacks + (size_t)i * TEAM_STACK;
    at->uc_stack.ss_size = TEAM_STACK;
    at->uc_link = NULL;
    makecontext(at, team_thread, 0);
    team->state[i] = TEAM_RUNS;
    team->turn[i] = 0;
}

static inline void team_block(void)
{
    for (unsigned i = 0; i < team->n; i++)
        team_prepare(i);
    while (team_step())
        ;
    if (team_release(0, team->n, TEAM_ENDED))
        return;
    fprintf(stderr, "threads of a block wait for each other in different places\n");
    abort();
}

static inline void team_run(void (*fn)(const void *), const void *args, unsigned blocks,
                            unsigned threads)
{
    size_t bytes = (size_t)threads * TEAM_STACK;
    struct team *t = (struct team *)calloc(1, sizeof(*t));

    if (!t || threads > TEAM_MOST || threads % 32 != 0)
        abort(); /* no whole warps */
    t->stacks =
        (char *)mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (t->stacks == MAP_FAILED)
        abort();
    t->n = threads;
    t->fn = fn;
    t->args = args;
    team = t;
    gridDim.x = blocks;
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        team_block();
    (void)munmap(t->stacks, bytes);
    free(t);
    team = NULL;
}

/* ---- what a kernel may do there */
#define SHARED static thread_local

static inline void block_wait(void)
{
    team_leave(TEAM_AT_BLOCK);
}

/* Tells the warp n words, and waits until all have told theirs; they can be read until the next but
 * one telling. */
static inline const uint32_t (*warp_tell(const uint32_t *w, unsigned n))[8]
{
    unsigned i = team->now, half = team->turn[i]++ % 2;

    memcpy(team->word[half][i], w, n * sizeof(*w));
    team_leave(TEAM_AT_WARP);
    return &team->word[half][i / 32 * 32];
}

static inline float lane_xor(float x, int k)
{
    uint32_t mine, other;

    memcpy(&mine, &x, sizeof(mine));
    other = warp_tell(&mine, 1)[(team->now % 32) ^ (unsigned)k][0];
    memcpy(&x, &other, sizeof(x));
    return x;
}

#define TEAM_KERNEL(name)                                                                          \
    EXPORTED const unsigned gpulet_##name##_args_bytes;                                            \
    const unsigned gpulet_##name##_args_bytes = sizeof(struct name##_args);                        \
    static void name##_thread(const struct name##_args &a);                                        \
    static void name##_one(const void *args)                                                       \
    {                                                                                              \
        name##_thread(*(const struct name##_args *)args);                                          \
    }                                                                                              \
    EXPORTED void gpulet_##name(const void *args, unsigned blocks, unsigned threads)               \
    {                                                                                              \
        team_run(name##_one, args, blocks, threads);                                               \
    }                                                                                              \
    static void name##_thread(const struct name##_args &a)
