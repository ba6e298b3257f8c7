// What the parts of the PTX machine share: the records that Python fills, a warp, and its block.
//
// A register is a row of 32 numbers, one for each lane of a warp, that lies at a byte offset in the
// warp's register file. Constants are rows as well, so that an instruction reads rows only.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

constexpr int LANES = 32;
constexpr int OPERANDS = 14;  // the most that an instruction has: mma takes 4 + 4 + 2 + 4
constexpr uint32_t ALL = 0xffffffffu;

struct Line {  // one instruction; machine.py has the same fields
    int32_t opcode;
    int32_t predicate;  // the row that guards it, or -1
    int32_t negated;
    int32_t operand[OPERANDS];  // byte offsets of rows
    int32_t size;               // bytes of an element that memory instructions move
    int32_t count;              // how many of them, or matrices
    int32_t width;              // bytes of the destination's register
    int32_t flags;              // SIGNED, TRANSPOSED
    uint32_t used_bytes;        // which bytes of a load the code uses, one bit each
    int32_t target;             // of a branch
    int64_t offset;             // added to an address
};
enum Flags { SIGNED = 1, TRANSPOSED = 2, LABELLED = 4 };

struct LineCount {  // what one instruction did, over all blocks; machine.py has the same fields
    int64_t warps;      // executions by a warp
    int64_t sectors;    // 32-byte sectors of global memory that its warps asked for
    int64_t bytes;      // bytes that its lanes needed of them
    int64_t wavefronts; // passes that shared memory took
    int64_t ideal;      // passes that it would take without a conflict between banks
    int64_t worst;      // the most lanes' words in one bank
};

struct Region {  // global memory that the launch was given
    uint64_t base;
    uint64_t size;
};

struct Counts {  // machine.py has the same fields
    int64_t warp_instructions;
    int64_t load_sectors;    // asked for by single instructions
    int64_t merged_sectors;  // asked for by a warp between two branches, stores or barriers
    int64_t merged_bytes;    // and what it needed of them
    int64_t unique_sectors;  // read by a block, each counted once
    int64_t unique_bytes;
    int64_t store_sectors;
    int64_t store_bytes;
    int64_t barriers;
};

struct Launch {  // machine.py has the same fields
    const Line* lines;
    int64_t line_count;
    const uint8_t* rows;  // what a register file holds at first
    int64_t row_bytes;
    const uint8_t* parameters;
    int64_t parameter_bytes;
    const Region* regions;
    int64_t region_count;
    const int64_t* blocks;  // numbers of the blocks that run
    int64_t block_count;
    int32_t grid[3];
    int32_t threads;
    int32_t shared_bytes;
    int32_t special[8];  // rows of %tid.x, %ctaid.x/y/z, %nctaid.x/y/z, %laneid; or -1
    int32_t noisy;       // whether approximations err by what NVIDIA allows
    int32_t backwards;   // whether the last warp runs first
    Counts* counts;
    LineCount* line_counts;
    int64_t fault_line;  // written when a check fails
    char fault[512];
};

struct Fault {  // a check that failed
    std::string text;
};

struct Block;

struct Warp {
    Block* block;
    int index;
    std::vector<uint8_t> rows;
    uint32_t alive;
    uint32_t syncs;  // barriers of the warp so far
    int64_t pc;
    uint32_t mask;  // the lanes at pc
    struct Waiting { int64_t pc; uint32_t mask; };
    std::vector<Waiting> waiting;  // lanes at other places
    bool at_barrier;
    bool branched;
    struct Copy { uint32_t to; uint64_t from; uint32_t bytes, taken; int lane; };
    std::vector<std::vector<Copy>> groups;  // asynchronous copies; the last is open
    struct Seen { uint64_t sector; uint32_t bytes, window; };
    std::vector<Seen> seen;  // a hash table of sectors that the open window has read
    uint32_t window, seen_count;

    template <class T> T* row(int32_t offset) { return reinterpret_cast<T*>(rows.data() + offset); }
};

struct SharedByte {
    uint32_t write_epoch, read_epoch, readers, write_sync;
    int16_t writer;  // a thread, or -1 where nothing was written
    int16_t copies;  // asynchronous ones under way
};

struct GlobalByte {
    uint32_t writer;  // block + 1
    uint32_t tag;     // epoch and thread of the write
    uint32_t reader;  // block + 1, or SEVERAL
    uint32_t last;    // the block + 1 that last read it
};
constexpr uint32_t SEVERAL = 0xffffffffu;

struct Shadow {
    GlobalByte* bytes;
    uint32_t* sectors;  // the block + 1 that last read each
};

struct Block {
    Launch* launch;
    int64_t number;
    uint32_t epoch;  // barriers so far, from 1
    std::vector<uint8_t> shared;
    std::vector<SharedByte> shared_bytes;
    std::vector<Warp> warps;
    std::vector<Shadow>* shadows;
};

using Handler = void (*)(Warp&, const Line&, uint32_t mask);

struct Opcode {
    const char* name;
    Handler handler;
    int8_t bytes[OPERANDS];  // of each operand's elements; 0 any width, -1 no operand
};

void add_arithmetic(std::vector<Opcode>&);
void add_floats(std::vector<Opcode>&);
void add_conversions(std::vector<Opcode>&);
void add_memory(std::vector<Opcode>&);
void add_shared(std::vector<Opcode>&);
void add_matrices(std::vector<Opcode>&);
void add_control(std::vector<Opcode>&);
const std::vector<Opcode>& opcodes();

void load_global(Warp&, const Line&, uint64_t address, int bytes, int lane, uint8_t* to);
void read_shared(Warp&, uint32_t address, int bytes, int lane, uint32_t used, uint8_t* to);
void write_shared(Warp&, uint32_t address, int bytes, int lane, const uint8_t* from);
void count_banks(Warp&, const Line&, const uint32_t* addresses, uint32_t mask, int bytes);
void finish_copies(Warp&, size_t still_open);
void close_window(Warp&);
// A loaded number into its register, which may be wider: with its sign or zeros above it.
void place_number(Warp&, const Line&, int operand, int lane, const uint8_t* from);
