# gpuletd: `make help` lists what there is.
#
# One build folder per flavour: build (release), build-asan, build-tsan.  `make FLAVOUR=asan X`
# makes X in that flavour.

# Where no -j is given: as many jobs as there are cores.
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS))$(filter clean,$(MAKECMDGOALS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

CC ?= gcc
FLAVOUR ?= release
PREFIX ?= /usr
DESTDIR ?=
VERSION := 0.1.0
MAN_DATE := November 21, 2026

B := build$(if $(filter-out release,$(FLAVOUR)),-$(FLAVOUR))
LIBS_PC := libmicrohttpd jansson libsystemd inih zlib libcurl

CFLAGS ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wvla -Wundef -Wstrict-prototypes -Wmissing-prototypes \
        -Wpointer-arith -Wwrite-strings -Wformat=2 -Werror
BASE := -std=gnu17 -fno-strict-aliasing -Iinclude -I. -pthread -D_GNU_SOURCE \
        -DGPULETD_VERSION='"$(VERSION)"' -fvisibility=hidden
FLAGS_release := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIE
LD_release := -pie -Wl,-z,relro,-z,now
FLAGS_asan := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
LD_asan := -fsanitize=address,undefined
FLAGS_tsan := -fsanitize=thread
LD_tsan := -fsanitize=thread
FLAGS_fuzz := -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined \
              -fno-omit-frame-pointer -DFUZZ_LIBFUZZER
LD_fuzz := -fsanitize=fuzzer,address,undefined
ALL_CFLAGS = $(BASE) $(WARN) $(CFLAGS) $(FLAGS_$(FLAVOUR))

# The CUDA plug-in is built where there is a toolkit: NVCC, its version, the folder of its headers,
# architectures.
CUDA := $(shell lib/backend/cuda/toolkit.sh)
PLUGIN := $(if $(CUDA),$(B)/gpulet-cuda.so)
# Headers of libraries that it uses where they are found at run time; absent: built without.
CUDA_LACKS := $(strip $(if $(CUDA),$(foreach h,cublasLt.h cudnn_graph.h,\
    $(if $(wildcard $(addsuffix /$h,$(word 3,$(CUDA)) /usr/include /usr/include/x86_64-linux-gnu)),,$h))))
# Its kernels: machine code for these architectures, and PTX of the last for later ones, which take none
# of a number with a letter.  Of no flavour.
CUDA_ARCHS ?= $(wordlist 4,9,$(CUDA))
CUDA_PTX = $(patsubst %f,%,$(patsubst %a,%,$(lastword $(CUDA_ARCHS))))
FATBIN := build/cuda/kernels.fatbin

# Flags for parts of the tree.  The planner's arithmetic must not depend on the machine; the sum of two
# bytes is what two nodes say.
part_flags = $(if $(filter lib/plan/% kernels/cpu/qadd.c,$(1)),-ffp-contract=off) \
             $(if $(filter kernels/cpu/%,$(1)),-O3 -fno-math-errno -fno-trapping-math -fopenmp-simd) \
             $(if $(filter lib/backend/backend.c,$(1)),-DGPULET_PLUGIN_DIR='"$(PREFIX)/lib/gpuletd"') \
             $(if $(filter lib/backend/cuda/% test/gpu/%,$(1)),-isystem $(word 3,$(CUDA)))

BASE_SRC := $(sort $(wildcard lib/base/*.c))
MODEL_SRC := $(sort $(wildcard lib/model/*.c kernels/ref/*.c))
PLAN_SRC := $(sort $(wildcard lib/plan/*.c))
BACKEND_SRC := $(sort $(wildcard lib/backend/*.c lib/backend/cpu/*.c lib/backend/sim/*.c kernels/cpu/*.c))
# In the plug-in, with what it needs of the library: it cannot see the daemon's own copy.
PLUGIN_SRC := $(sort $(wildcard lib/backend/cuda/*.c)) $(BASE_SRC) lib/model/einsum.c lib/model/graph.c lib/model/memplan.c
ENGINE_SRC := $(sort $(wildcard lib/engine/*.c lib/problem/*.c lib/replay/*.c))
LIB_SRC := $(BASE_SRC) $(MODEL_SRC) $(PLAN_SRC) $(BACKEND_SRC) $(ENGINE_SRC)
# Everything of the daemon but main(), so that tests can link it.
DAEMON_SRC := $(sort $(filter-out daemon/main.c,$(wildcard daemon/*.c)))
CLI_SRC := $(sort $(wildcard cli/*.c))

obj = $(patsubst %.c,$(B)/%.o,$(1))
LIB := $(B)/libgpulet.a
UNIT := $(patsubst test/%.c,$(B)/test/%,$(wildcard test/unit/test_*.c test/race/test_*.c test/fuzz/fuzz_*.c))
OPS := $(patsubst test/%.c,$(B)/test/%,$(wildcard test/ops/test_*.c))
# The real cuDNN leaks of its own: not under sanitizers.
NO_GPU := $(if $(CUDA_LACKS),test_libraries test_choices test_convolutions test_half test_fused test_pixels test_cudnn) $(if $(filter release,$(FLAVOUR)),,test_cudnn)
GPU := $(if $(CUDA),$(patsubst test/%.c,$(B)/test/%,$(filter-out $(NO_GPU:%=test/gpu/%.c),$(wildcard test/gpu/test_*.c))))
GPU_TOOLS := $(if $(CUDA),$(addprefix $(B)/test/gpu/,bench compare facts fill ladder))
FAKES := $(addprefix $(B)/test/gpu/,libcuda.so.1 libnvidia-ml.so.1 libkernels.so wrong/gpulet-cuda.so \
         $(if $(CUDA_LACKS),,libcublasLt.so.13 libcudnn.so.9) without/libcublasLt.so.13 without/libcudnn.so.9)
# Of no flavour, and with or without a toolkit.
TOOLKIT_CHECK := $(if $(filter build,$(B)),test/gpu/toolkit_check.sh)
BENCH := $(patsubst test/%.c,$(B)/test/%,$(wildcard test/bench/bench_*.c))
PROGRAMS := $(if $(wildcard daemon/main.c),$(B)/gpuletd) $(if $(CLI_SRC),$(B)/gpuletctl)

PC_CFLAGS := $(shell pkg-config --cflags $(LIBS_PC) 2>/dev/null)
PC_LIBS := $(shell pkg-config --libs $(LIBS_PC) 2>/dev/null)
LIB_LIBS := -ldnnl -lgomp -ljansson -linih -lm -ldl
# libmicrohttpd's calls of this function are to find ours: daemon/http_refusal.c.
DAEMON_LIBS := $(PC_LIBS) -Wl,--export-dynamic-symbol=MHD_queue_response

MAN := $(patsubst docs/man/%.in,$(B)/man/%,$(wildcard docs/man/*.in))

.PHONY: all help man tests benches demo install clean format check check-fast check-layers check-unit \
        check-ops check-cuda check-http check-onnx check-docs check-units check-clang check-asan check-tsan \
        check-race race check-fresh check-systemd check-fuzz fuzz bench-cpu bench-http bench-plan \
        bench-sim gpu-bundle FORCE
.SECONDARY:
.DELETE_ON_ERROR:

all: $(PROGRAMS) $(PLUGIN) ## build the daemon, gpuletctl and, where there is a toolkit, the CUDA plug-in
	@$(if $(CUDA),:,echo 'skipped: no CUDA toolkit')
	@$(if $(CUDA_LACKS),echo 'gpulet-cuda.so: built and tested without $(CUDA_LACKS)',:)

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "  %-15s %s\n", $$1, $$2}'

$(B)/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC  $@'
	@$(CC) $(ALL_CFLAGS) $(call part_flags,$<) $(PC_CFLAGS) -MMD -MP -c -o $@ $<

$(LIB): $(call obj,$(LIB_SRC))
	@rm -f $@
	@ar rcs $@ $^

$(B)/libdaemon.a: $(call obj,$(DAEMON_SRC))
	@rm -f $@
	@ar rcs $@ $^

$(B)/gpuletd: $(B)/daemon/main.o $(B)/libdaemon.a $(LIB)
	@echo '  LD  $@'
	@$(CC) $(LD_$(FLAVOUR)) -pthread -o $@ $^ $(DAEMON_LIBS) $(LIB_LIBS)

$(B)/gpuletctl: $(call obj,$(CLI_SRC)) $(LIB)
	@echo '  LD  $@'
	@$(CC) $(LD_$(FLAVOUR)) -pthread -o $@ $^ $(PC_LIBS) $(LIB_LIBS)

# Position-independent, for shared objects.
$(B)/pic/%.o: %.c
	@mkdir -p $(@D)
	@echo '  CC  $@'
	@$(CC) $(ALL_CFLAGS) -fPIC $(call part_flags,$<) -MMD -MP -c -o $@ $<

# Made anew when the list of architectures is another one.
build/cuda/archs: FORCE
	@mkdir -p $(@D)
	@echo '$(CUDA_ARCHS)' | cmp -s - $@ || echo '$(CUDA_ARCHS)' >$@

NVCC_FLAGS = $(word 1,$(CUDA)) -std=c++17 -O3 -I. --fatbin -Xfatbin -compress-all \
             $(foreach a,$(CUDA_ARCHS),-gencode=arch=compute_$a,code=sm_$a) \
             -gencode=arch=compute_$(CUDA_PTX),code=compute_$(CUDA_PTX)

$(FATBIN): $(wildcard kernels/cuda/*) build/cuda/archs
	@echo '  NVCC $@'
	@nice $(NVCC_FLAGS) -o $@ kernels/cuda/kernels.cu

$(B)/pic/lib/backend/cuda/embed.o: lib/backend/cuda/embed.S $(FATBIN)
	@mkdir -p $(@D)
	@$(CC) -DFATBIN='"$(FATBIN)"' -c -o $@ $<

# The same for the tool that looks at a device.
build/cuda/facts.fatbin: test/gpu/facts.cu test/gpu/facts_kernels.h kernels/cuda/kit.cuh build/cuda/archs
	@echo '  NVCC $@'
	@nice $(NVCC_FLAGS) -o $@ $<

$(B)/test/gpu/facts_code.o: lib/backend/cuda/embed.S build/cuda/facts.fatbin
	@mkdir -p $(@D)
	@$(CC) -DFATBIN='"build/cuda/facts.fatbin"' -c -o $@ $<

FACTS_SRC := $(wildcard test/gpu/facts_*.c) lib/backend/cuda/driver.c lib/backend/cuda/error.c
$(B)/test/gpu/facts: $(B)/test/gpu/facts_code.o $(call obj,$(FACTS_SRC))

$(B)/test/gpu/bench: $(B)/test/gpu/facts_code.o $(call obj,$(wildcard test/gpu/bench_*.c) $(filter-out \
    test/gpu/facts_%,$(FACTS_SRC)) test/gpu/facts_driver.c)

$(B)/test/gpu/ladder: $(B)/test/gpu/facts_code.o $(call obj,test/gpu/facts_driver.c $(addprefix lib/backend/cuda/,driver.c error.c nvml.c))

# The same kernels for the host: the fake driver runs them.
$(B)/test/gpu/libkernels.so: $(wildcard kernels/cuda/*) test/gpu/facts.cu test/gpu/facts_kernels.h $(wildcard test/gpu/*_host.h)
	@mkdir -p $(@D)
	@echo '  CXX $@'
	@g++ -std=c++17 -O1 -g -Wall -Wextra -Werror -fPIC -shared -I. $(FLAGS_$(FLAVOUR):-fPIE=) -x c++ -o $@ \
	    kernels/cuda/kernels.cu test/gpu/facts.cu

$(B)/gpulet-cuda.so: $(B)/pic/lib/backend/cuda/embed.o $(patsubst %.c,$(B)/pic/%.o,$(PLUGIN_SRC))
	@echo '  LD  $@'
	@$(CC) $(filter-out -pie,$(LD_$(FLAVOUR))) -shared -pthread -o $@ $^ -lm -ldl

$(B)/test/gpu/libcuda.so.1: $(B)/pic/test/gpu/fake_graph.o $(B)/pic/test/gpu/fake_order.o

# The fakes of the driver and of NVML that tests open in their place.
$(B)/test/gpu/lib%.so.1: $(B)/pic/test/gpu/fake_%.o
	@mkdir -p $(@D)
	@echo '  LD  $@'
	@$(CC) $(filter-out -pie,$(LD_$(FLAVOUR))) -shared -pthread -Wl,-soname,$(@F) -o $@ $^

$(B)/test/gpu/libcublasLt.so.13: $(B)/pic/test/gpu/fake_cublasLt.o
$(B)/test/gpu/libcudnn.so.9: $(B)/pic/test/gpu/fake_cudnn.o
$(B)/test/gpu/libcublasLt.so.13 $(B)/test/gpu/libcudnn.so.9:
	@mkdir -p $(@D)
	@echo '  LD  $@'
	@$(CC) $(filter-out -pie,$(LD_$(FLAVOUR))) -shared -pthread -Wl,-soname,$(@F) -o $@ $^ -lm

# No library: what a machine without them has, in front of what this one has.
$(B)/test/gpu/without/%:
	@mkdir -p $(@D)
	@touch $@

$(B)/test/gpu/wrong/gpulet-cuda.so: $(B)/pic/test/gpu/wrong_abi.o
	@mkdir -p $(@D)
	@$(CC) $(filter-out -pie,$(LD_$(FLAVOUR))) -shared -o $@ $^

# A test may use the library and, if there is one, the daemon without its main().
$(B)/test/%: $(B)/test/%.o $(if $(DAEMON_SRC),$(B)/libdaemon.a) $(LIB)
	@mkdir -p $(@D)
	@echo '  LD  $@'
	@$(CC) $(LD_$(FLAVOUR)) -pthread -o $@ $(filter %.o,$^) $(filter %.a,$^) $(DAEMON_LIBS) $(LIB_LIBS)

# The operator cases are shared by the programs there.
$(OPS): $(call obj,test/ops/cases.c test/ops/describe.c test/ops/refusals.c)

$(GPU): $(PLUGIN) $(FAKES)
# Looks into the plug-in.
PLUGIN_OBJ = $(B)/pic/lib/backend/cuda/embed.o $(patsubst %.c,$(B)/pic/%.o,$(filter lib/backend/cuda/%,$(PLUGIN_SRC)))
$(B)/test/gpu/test_cudnn: $(PLUGIN_OBJ)

# The lists in the man pages are the programs' own tables.
$(B)/man/%: docs/man/%.in $(PROGRAMS)
	@mkdir -p $(@D)
	@awk -v program=$(B)/$(firstword $(subst ., ,$*)) -v date='$(MAN_DATE)' \
	    '/^@[A-Z]+@$$/ { gsub("@", ""); fflush(); \
	                     system(program " --document " tolower($$0)); next } \
	     { sub("@DATE@", date); print }' $< >$@

man: $(MAN) ## the man pages, in build/man

demo: all ## real models answer real images from gpu-lets of this machine's cores
	@test/demo.sh

install: all man ## into DESTDIR, PREFIX=/usr
	install -Dm755 $(B)/gpuletd $(DESTDIR)$(PREFIX)/sbin/gpuletd
	install -Dm755 $(B)/gpuletctl $(DESTDIR)$(PREFIX)/bin/gpuletctl
	$(if $(PLUGIN),install -Dm644 $(PLUGIN) $(DESTDIR)$(PREFIX)/lib/gpuletd/gpulet-cuda.so)
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in systemd/*.service systemd/*.socket; do \
	    sed 's|/usr/sbin/|$(PREFIX)/sbin/|' $$unit \
	        >$(DESTDIR)$(PREFIX)/lib/systemd/system/$${unit##*/} || exit 1; done
	install -Dm644 systemd/gpuletd.sysusers $(DESTDIR)$(PREFIX)/lib/sysusers.d/gpuletd.conf
	install -Dm644 systemd/gpuletd.tmpfiles $(DESTDIR)$(PREFIX)/lib/tmpfiles.d/gpuletd.conf
	for page in $(MAN); do \
	    install -Dm644 -t $(DESTDIR)$(PREFIX)/share/man/man$${page##*.} $$page || exit 1; done
	[ -e $(DESTDIR)/etc/gpuletd/gpuletd.conf ] || \
	    install -Dm644 etc/gpuletd.conf $(DESTDIR)/etc/gpuletd/gpuletd.conf

# ---- tests: each part ends with a line "N passed, N failed"

tests: $(UNIT) $(OPS) $(GPU) $(GPU_TOOLS) $(PROGRAMS) $(B)/test/race/race ## build the test programs

benches: $(BENCH) ## build the benchmarks

check: all tests man ## everything but check-fresh and check-systemd
	@test/check.sh layers unit fuzz ops cuda onnx http docs units clang asan tsan

check-fast: tests check-layers check-clang ## layers, clang's opinion, unit, ops: minutes
	@BUILD=$(B) test/run.sh $(call longest_first,$(UNIT) $(OPS) $(GPU)) $(if $(CUDA),test/gpu/ops.sh) $(TOOLKIT_CHECK)

check-layers: $(call obj,$(PLAN_SRC)) ## who includes whom, and what the planner may call
	@test/layers.sh $(B) "$(CC)"

# Those that take longest begin, so that no core waits for the last one.
LONGEST := $(addprefix $(B)/test/,unit/test_make unit/test_engine_accuracy unit/test_loads gpu/test_fused gpu/test_sides)
longest_first = $(filter $(LONGEST),$(1)) $(filter-out $(LONGEST),$(1))

check-unit: tests ## modules, races
	@BUILD=$(B) test/run.sh test/race/quick.sh $(call longest_first,$(filter-out $(B)/test/fuzz/%,$(UNIT))) $(TOOLKIT_CHECK)

check-fuzz: tests ## the corpora of all fuzz targets, and broken input made at random
	@test/run.sh $(filter $(B)/test/fuzz/%,$(UNIT))

TARGET ?= onnx
SECONDS ?= 60
fuzz: ## libFuzzer: TARGET=onnx|run|batch|passes|problem|regex|trace|v2 SECONDS=60 (clang)
	@$(MAKE) CC=clang-14 FLAVOUR=fuzz build-fuzz/test/fuzz/fuzz_$(TARGET)
	@test/fuzz/fuzz.sh $(TARGET) $(SECONDS)

check-ops: tests ## operators against the plain-C reference
	@test/run.sh $(OPS)

check-cuda: $(if $(filter release,$(FLAVOUR)),tests,$(OPS) $(GPU) $(PROGRAMS)) ## the CUDA plug-in, and its kernels on the host, on a fake of the driver
	@$(if $(CUDA),BUILD=$(B) test/run.sh $(if $(filter release,$(FLAVOUR)),test/gpu/bundle_check.sh) test/gpu/ops.sh \
	    $(call longest_first,$(GPU)),echo 'skipped: no CUDA toolkit'; false)

gpu-bundle: all tests ## a folder that validates everything on a machine with a GPU
	@$(if $(CUDA),test/gpu/bundle.sh $(B),echo 'skipped: no CUDA toolkit'; false)

check-http: all $(if $(CUDA),$(FAKES)) ## the daemon from outside: clients, state, bad input
	@BUILD=$(B) TEST_TIMEOUT=1800 test/run.sh test/http/run.sh

check-onnx: tests ## the tests that come with ONNX, in process and through HTTP
	@BUILD=$(B) .venv-test/bin/python test/onnx/check.py

check-docs: $(PROGRAMS) man ## what the documents say is so
	@test/docs.py $(B)

check-units: all ## systemd's opinion of the unit files
	@test/systemd/units.sh

check-clang: ## everything builds with clang, without a warning, benchmarks too
	@$(MAKE) CC=clang-14 B=build-clang all tests benches

check-asan: ## unit, ops and hostile HTTP clients under ASan and UBSan
	@$(MAKE) FLAVOUR=asan check-unit
	@$(MAKE) FLAVOUR=asan check-fuzz
	@$(MAKE) FLAVOUR=asan check-ops
	@$(if $(CUDA),$(MAKE) FLAVOUR=asan check-cuda)
	@BUILD=build-asan test/http/run.sh $(addprefix test/http/test_,robust.py faults.py)

RACES := $(filter $(B)/test/race/% $(B)/test/unit/test_engine% $(B)/test/unit/test_sim $(B)/test/unit/test_http,$(UNIT))
check-race: $(RACES)
	@test/run.sh $(call longest_first,$(RACES))

check-tsan: ## engine, races and the daemon under TSan
	@$(MAKE) FLAVOUR=tsan check-race
	@$(if $(CUDA),$(MAKE) FLAVOUR=tsan check-cuda)
	@$(MAKE) FLAVOUR=tsan all
	@BUILD=build-tsan test/http/run.sh $(addprefix test/http/test_,v2_client.py wire.py admin.py state.py faults.py)

check-fresh: ## both ./bootstrap commands on a Debian 12 that has nothing (root)
	@test/fresh.sh

check-systemd: all man ## the installed daemon under a real systemd (root)
	@test/systemd/run.sh

PLAN_BENCH := bench_fit bench_published bench_scenarios bench_mixes bench_plan_scale bench_replay bench_decide
race: $(B)/test/race/race ## every policy on every mix, replayed: ten minutes
	@$(B)/test/race/race --json $(B)/race.jsonl

$(B)/test/race/race: $(B)/test/race/field.o

bench-plan: $(addprefix $(B)/test/bench/,$(PLAN_BENCH)) ## planners: prediction, published cases, rates, mixes, size; what a request costs
	@for b in $(PLAN_BENCH); do echo "== $$b"; $(B)/test/bench/$$b; done

BENCH_CPU = .venv-test/bin/python test/bench/bench_cpu.py $(B) --json $(B)/bench-cpu.json
bench-cpu: $(B)/test/bench/bench_model $(PROGRAMS) ## beside ONNX Runtime on the same cores: an hour [ONLY=MODEL] [SLICE=SECONDS] [PROFILE=1]
	@$(BENCH_CPU) $(if $(ONLY),--model $(ONLY)) $(if $(PROFILE),--profile,$(if $(SLICE),--seconds $(SLICE)))
	@$(if $(PROFILE),,.venv-test/bin/python test/bench/bench_cpu.py --table $(B)/bench-cpu.json)

bench-sim: $(B)/test/bench/bench_sim ## how exactly a simulated device keeps its time
	@$(B)/test/bench/bench_sim

bench-http: all $(BENCH) ## against a bare HTTP server, what a refusal takes, and JSON against jansson [ONLY=ROWS]
	@test/bench/pairs.py $(B) $(if $(ONLY),--only $(ONLY))
	@$(B)/test/bench/bench_json

clean: ## remove what was built
	rm -rf build build-*

format: ## clang-format every source file
	clang-format-14 -i $$(git ls-files '*.c' '*.h')

-include $(shell find $(B) -name '*.d' 2>/dev/null)

$(B)/daemon/page.o: daemon/page.html
