# nibble: make, make demo, make test, make help
#
# config=release (default), debug, asan, tsan, fuzz or cover; each builds into its own build/$(config).
# WERROR=1 makes warnings errors.

config ?= release
build  := build/$(config)
obj    := $(build)/obj

PREFIX     ?= /usr/local
BINDIR     ?= $(PREFIX)/bin
LIBDIR     ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR    ?= $(PREFIX)/share
MANDIR     ?= $(DATADIR)/man

REFERENCE ?=
SUITES    ?=
MODEL     ?= models/fairytale-4bit.npz

# Should a flaw be exploited after all: smashed stacks, overrun buffers and jumps astray end the run.
# Sanitizers watch these places themselves.
known            = $(shell $(CC) -Werror $(1) -S -x c -o /dev/null /dev/null 2>/dev/null && echo $(1))
hardened        := $(foreach f,-fstack-protector-strong -fstack-clash-protection -fcf-protection,$(call known,$(f)))
fortified       := -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2

CFLAGS_release  := -O3 -g $(hardened) $(fortified)
CFLAGS_debug    := -O0 -g3 $(hardened)
CFLAGS_asan     := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
CFLAGS_tsan     := -O1 -g -fsanitize=thread
CFLAGS_fuzz     := -O1 -g -fsanitize=address,undefined,fuzzer-no-link -fno-sanitize-recover=all
CFLAGS_cover    := -O0 -g --coverage

ifndef CFLAGS_$(config)
$(error unknown config '$(config)'; use release, debug, asan, tsan, fuzz or cover)
endif

# Sanitizers and coverage do at exit what the sandbox refuses (src/cli/sandbox.h).
CFLAGS_asan     += -DSANDBOX_OFF
CFLAGS_tsan     += -DSANDBOX_OFF
CFLAGS_fuzz     += -DSANDBOX_OFF
CFLAGS_cover    += -DSANDBOX_OFF

warnings := -Wall -Wextra -Wshadow -Wundef -Wvla -Wpointer-arith -Wwrite-strings -Wconversion -Wsign-conversion \
            $(if $(WERROR),-Werror)
# -fPIC: libnibble.a goes into programs at any address (-pie, as ours) and into shared libraries.
common   := $(CFLAGS_$(config)) $(warnings) -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=off -pthread -MMD -MP \
            -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -Isrc -I$(build)/gen
# "Unique" symbols of g++ cannot be made local (see libnibble.a below); clang++ makes none.
gnu_unique := $(shell $(CXX) -fno-gnu-unique -E -x c++ /dev/null >/dev/null 2>&1 && echo -fno-gnu-unique)
c_flags  := -std=c11 -Wstrict-prototypes -Wmissing-prototypes $(common) $(CFLAGS)
cc_flags := -std=c++17 $(gnu_unique) $(common) $(CXXFLAGS)
libs     := -lopenblas -lzip -lcjson -lsentencepiece -lpcre2-8 -lutf8proc -lstdc++ -lm -pthread
cli_libs := -ledit
link     := $(CXX) $(CFLAGS_$(config)) -pie -Wl,-z,relro,-z,now,-z,noexecstack $(LDFLAGS)

# A SIMD level is a word in its machine's list, its flags, and src/kern/LEVEL.c or LEVEL_*.c.
isa_avx2       := -mavx2 -mfma -mf16c
isa_avxvnni    := $(isa_avx2) -mavxvnni
isa_avx512     := $(isa_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
levels_x86_64  := avx2 avxvnni avx512
levels_aarch64 :=
isa_of          = $(isa_$(firstword $(subst _, ,$(basename $(notdir $(1))))))
levels         := $(levels_$(shell uname -m))
kern_built     := -DKERN_BUILT=$(foreach l,$(levels),BUILT($(l)))
files_of        = $(foreach l,$(1),$(wildcard src/kern/$(l).c src/kern/$(l)_*.c))
level_files    := $(call files_of,$(levels_x86_64) $(levels_aarch64))
kept_levels    := $(call files_of,$(levels))

sources  := $(filter-out $(level_files),$(wildcard src/*/*.c)) $(kept_levels) $(wildcard src/text/*.cc)
cli      := $(filter src/cli/%,$(sources))
library  := $(filter-out src/cli/%,$(sources))
objects   = $(patsubst src/%,$(obj)/%.o,$(1))
tests    := $(patsubst tests/%.c,$(build)/tests/%,$(wildcard tests/unit/*.c tests/kern/*.c tests/model/*.c tests/text/*.c tests/cli/*.c))
nibble   := $(build)/nibble
shared   := $(addprefix $(build)/,nibble.1 completion.bash completion.zsh completion.fish)

# Fuzz targets: each is driven over its corpus by replay.c, and in config=fuzz by libFuzzer too.
targets  := $(filter-out replay,$(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/*.c)))
replays  := $(targets:%=$(build)/tests/fuzz/%)
fuzzers  := $(targets:%=$(build)/fuzz/%)
inside    = $(filter-out %/main.c.o,$(call objects,$(cli))) $(call objects,$(library))
FUZZ_SECONDS ?= 600
SOAK     ?= 1000

counted := $(filter cover,$(config))
.PHONY: all demo test valgrind lint fuzz fuzzers soak help clean install uninstall
.DELETE_ON_ERROR:
all: $(nibble) $(build)/libnibble.a $(shared)

## make              build $(build)/nibble and libnibble.a
## make demo         stream a story from the model that ships in models/
demo: $(nibble)
	$(nibble) generate $(MODEL) -p "Once upon a time" --echo --temp 0.8 --top-p 0.9 --repeat-penalty 1.1 --stats

## make test         every check; REFERENCE=DIR adds those on reference data
##                   SUITES="pool npz": only suites with one of these words in their names
test: $(nibble) $(build)/libnibble.a $(tests) $(replays) $(build)/tests/soak/soak
	@$(if $(counted),find $(build) -name '*.gcda' -delete)
	/usr/bin/python3 tests/run.py --build $(build) --config $(config) $(if $(REFERENCE),--reference "$(REFERENCE)") \
	    $(if $(SUITES),--suites "$(SUITES)")$(if $(counted),; result=$$?; /usr/bin/python3 tools/coverage.py --build $(build) && exit $$result)

## make valgrind     the suites in C under valgrind, which must be installed
valgrind: $(tests)
	/usr/bin/python3 tests/run.py --build $(build) --config $(config) \
	    --under "valgrind -q --error-exitcode=9 --leak-check=full --suppressions=tests/valgrind.supp"

# invalidFunctionArg: cppcheck lets a sum over the vocabulary have no terms, and so be 0 for log.
# clang-tidy is told of every file in a line: its name, then the flags it is compiled with. With the
# 225,000 nodes a function that it looks at by itself it takes three times as long and finds no more.
tidy = '$(1) -- $(if $(filter %.cc,$(1)),-std=c++17,-std=c11) $(if $(filter src/kern/%,$(1)),$(call isa_of,$(1)) \
    "$(kern_built)") -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -Iinclude -Isrc -Itests -I$(build)/gen \
    -Xclang -analyzer-config -Xclang max-nodes=75000'
## make lint         the checks of the house (layers, sizes, names), cppcheck and clang-tidy
lint: $(build)/libnibble.a
	/usr/bin/python3 tools/lint.py --build $(build)
	@for tool in cppcheck clang-tidy; do command -v $$tool >/dev/null || \
	    { echo "$$tool is not installed; run: sh scripts/setup.sh lint" >&2; exit 1; }; done
	cppcheck --quiet --error-exitcode=1 --inline-suppr --std=c11 --enable=warning,performance,portability \
	    --suppress=invalidFunctionArg -D_GNU_SOURCE -Isrc -Iinclude --template='{file}:{line}: {message} [{id}]' src
	@printf '%s\n' $(foreach f,$(sources) $(wildcard tests/fuzz/*.c),$(call tidy,$(f))) | \
	    xargs -L 1 -P "$$(nproc)" clang-tidy --quiet 2>$(build)/tidy.log || { grep -v generated $(build)/tidy.log >&2; exit 1; }

## make fuzz         every fuzz target for FUZZ_SECONDS (600), two at a time; needs clang
fuzz:
	$(MAKE) -s config=fuzz CC=clang CXX=clang++ fuzzers
	/usr/bin/python3 tests/fuzz/fuzz.py --build build/fuzz --seconds $(FUZZ_SECONDS) $(FUZZ_TARGETS)
fuzzers: $(fuzzers)

## make soak         SOAK (1000) generations in one process, in several weathers
soak: $(nibble) $(build)/tests/soak/soak
	/usr/bin/python3 tests/soak/soak.py --build $(build) --count $(SOAK)

## make install      PREFIX (/usr/local), BINDIR LIBDIR INCLUDEDIR DATADIR MANDIR, DESTDIR
to    = "$(DESTDIR)$(1)"
below = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))
install: all
	install -D -m 755 $(nibble) $(call to,$(BINDIR)/nibble)
	install -D -m 644 $(build)/libnibble.a $(call to,$(LIBDIR)/libnibble.a)
	install -D -m 644 include/nibble.h $(call to,$(INCLUDEDIR)/nibble.h)
	install -D -m 644 $(build)/nibble.1 $(call to,$(MANDIR)/man1/nibble.1)
	install -D -m 644 $(build)/completion.bash $(call to,$(DATADIR)/bash-completion/completions/nibble)
	install -D -m 644 $(build)/completion.zsh $(call to,$(DATADIR)/zsh/site-functions/_nibble)
	install -D -m 644 $(build)/completion.fish $(call to,$(DATADIR)/fish/vendor_completions.d/nibble.fish)
	install -D -m 644 include/nibble.pc.in $(call to,$(LIBDIR)/pkgconfig/nibble.pc)
	sed -i -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(call below,$(LIBDIR))|' \
	    -e 's|@INCLUDEDIR@|$(call below,$(INCLUDEDIR))|' -e 's|@LIBS@|$(libs)|' \
	    -e "s|@VERSION@|$$(sed -n 's/.*NIBBLE_VERSION "\(.*\)"/\1/p' $(build)/gen/version.h)|" \
	    $(call to,$(LIBDIR)/pkgconfig/nibble.pc)

## make uninstall    with the words that install was given
uninstall:
	rm -f $(call to,$(BINDIR)/nibble) $(call to,$(LIBDIR)/libnibble.a) $(call to,$(INCLUDEDIR)/nibble.h) \
	    $(call to,$(MANDIR)/man1/nibble.1) $(call to,$(LIBDIR)/pkgconfig/nibble.pc) \
	    $(call to,$(DATADIR)/bash-completion/completions/nibble) \
	    $(call to,$(DATADIR)/zsh/site-functions/_nibble) \
	    $(call to,$(DATADIR)/fish/vendor_completions.d/nibble.fish)

## make clean        remove build/
clean:
	rm -rf build

## make help         this list; config=debug|asan|tsan|cover chooses another build
help:
	@sed -n 's/^## //p' Makefile

$(nibble): $(call objects,$(cli)) $(build)/libnibble.a
	$(link) -o $@ $^ $(cli_libs) $(libs)

# The program prints what is made of its option tables.
$(build)/nibble.1: $(nibble)
	$(nibble) man > $@
$(build)/completion.%: $(nibble)
	$(nibble) completion $* > $@

# One relocatable object whose only global symbols are the public ones. Templates of the C++ library
# that spm.cc instantiates would be global too, and shared by name with those of the program that links
# us: their groups are dissolved first, or making them local would leave references to discarded code.
$(build)/libnibble.a: $(call objects,$(library))
	ld -r --force-group-allocation -o $(obj)/libnibble.o $^
	objcopy --wildcard --keep-global-symbol='nibble_*' $(obj)/libnibble.o
	rm -f $@
	$(AR) rcs $@ $(obj)/libnibble.o

$(build)/tests/%: $(build)/tests/%.o $(call objects,$(library))
	$(link) -o $@ $^ $(libs)

# Those of tests/cli and tests/fuzz see the command line's own functions too.
$(build)/tests/cli/%: $(build)/tests/cli/%.o $(inside)
	$(link) -o $@ $^ $(cli_libs) $(libs)

$(build)/tests/fuzz/%: $(build)/tests/fuzz/%.o $(build)/tests/fuzz/replay.o $(inside)
	$(link) -o $@ $^ $(cli_libs) $(libs)

$(build)/fuzz/%: $(build)/tests/fuzz/%.o $(inside)
	@mkdir -p $(@D)
	$(link) -fsanitize=fuzzer -o $@ $^ $(cli_libs) $(libs)

$(tests:=.o) $(replays:=.o) $(build)/tests/fuzz/replay.o $(build)/tests/soak/soak.o: $(build)/tests/%.o: tests/%.c
	@mkdir -p $(@D)
	$(CC) $(c_flags) $(if $(filter fuzz,$(config)),-fno-sanitize=fuzzer-no-link) -Itests -c -o $@ $<

$(obj)/kern/select.c.o: c_flags += '$(kern_built)'
# Fuzzers run kernels as they are: tests/kern watches their memory, and instrumented they compile for
# minutes and take most of the time; so they would in config=cover, without being optimised.
# At -O0 gcc's own intrinsics are macros, whose masks of all ones change sign.
# Sanitizers take loops apart that are to be unrolled, and the warning of that has no name to allow it by.
# A wrong pointer is found where it is followed; with checks of each one made a file takes minutes to compile.
# In a release their stacks are not guarded: every array there has a fixed size that the kernel keeps
# to whatever a file says, and the guard would be set and compared in each call.
fewer_checks := -g1 -fno-sanitize=null,object-size,pointer-overflow
$(obj)/kern/%.c.o: isa = $(call isa_of,$<) \
    $(if $(filter release,$(config)),-fno-stack-protector) \
    $(if $(filter asan,$(config)),$(fewer_checks)) \
    $(if $(filter fuzz,$(config)),-fno-sanitize=all) $(if $(filter cover,$(config)),-O2) \
    $(if $(filter debug,$(config)),-Wno-sign-conversion) $(if $(filter-out release,$(config)),-Wno-error)
$(obj)/%.c.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(c_flags) $(isa) -c -o $@ $<
$(obj)/%.cc.o: src/%.cc
	@mkdir -p $(@D)
	$(CXX) $(cc_flags) -c -o $@ $<

# The version line: rewritten only when it says something new, so that nothing is rebuilt for it.
version := $(shell sh scripts/version.sh $(build)/gen/version.h "$(levels)")
$(obj)/api/%.o: | $(build)/gen/version.h
$(build)/gen/version.h:
	@sh scripts/version.sh $@ "$(levels)"

-include $(patsubst %,%,$(wildcard $(obj)/*/*.d $(build)/tests/*/*.d))
