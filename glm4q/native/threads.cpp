#include "threads.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

namespace glm4q {
namespace {

// How long a thread polls for work before it sleeps: longer than the time between two matrices of a
// layer, and too short to disturb other programs.
constexpr std::chrono::microseconds PATIENCE{50};

void pause() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// The pool runs one job at a time. The upper half of `ticket` is the job's number, and the lower
// half is the next piece that no thread has taken. So a late thread cannot take a piece of another
// job.
class Pool {
public:
    void run(int threads, int pieces, Task task, const void* job) {
        std::lock_guard<std::mutex> one_job(jobs_);
        while (workers_ < threads - 1) std::thread(&Pool::work, this, workers_++).detach();
        const uint32_t number = static_cast<uint32_t>(ticket_.load() >> 32) + 1;
        // Between jobs there is no piece to take, so no thread reads these while they change.
        task_ = task;
        job_ = job;
        pieces_ = pieces;
        helpers_ = threads - 1;
        unfinished_.store(pieces, std::memory_order_relaxed);
        {
            std::lock_guard<std::mutex> lock(sleep_);
            ticket_.store(static_cast<uint64_t>(number) << 32, std::memory_order_release);
        }
        if (asleep_.load() > 0) awake_.notify_all();
        take_pieces(number);
        wait_for_none(unfinished_);
        // A thread that found no piece may still be reading the job: wait until it has looked.
        ticket_.store(static_cast<uint64_t>(number) << 32 | NOTHING, std::memory_order_release);
        wait_for_none(looking_);
    }

private:
    static constexpr uint32_t NOTHING = 1u << 31;

    // On a busy machine the other thread may need this very core: give it up after some polls.
    static void wait_for_none(const std::atomic<int>& count) {
        for (int spins = 0; count.load(std::memory_order_acquire) > 0; spins++)
            spins < 2000 ? pause() : std::this_thread::yield();
    }

    void take_pieces(uint32_t number) {
        for (;;) {
            uint64_t ticket = ticket_.load(std::memory_order_acquire);
            const uint32_t piece = static_cast<uint32_t>(ticket);
            if (ticket >> 32 != number || piece >= static_cast<uint32_t>(pieces_)) return;
            if (!ticket_.compare_exchange_weak(ticket, ticket + 1)) continue;
            task_(job_, static_cast<int>(piece));
            unfinished_.fetch_sub(1, std::memory_order_release);
        }
    }

    void work(int place) {
        uint32_t seen = 0;
        for (;;) {
            seen = wait_for_other_than(seen);
            looking_.fetch_add(1);
            // Read the ticket again: the job may have ended before `looking_` counted this thread.
            const uint64_t ticket = ticket_.load();
            if (ticket >> 32 == seen && !(ticket & NOTHING) && place < helpers_) take_pieces(seen);
            looking_.fetch_sub(1, std::memory_order_release);
        }
    }

    uint32_t wait_for_other_than(uint32_t seen) {
        const auto end = std::chrono::steady_clock::now() + PATIENCE;
        do {
            for (int spins = 0; spins < 64; spins++, pause())
                if (const uint32_t number = current(); number != seen) return number;
        } while (std::chrono::steady_clock::now() < end);
        std::unique_lock<std::mutex> lock(sleep_);
        asleep_.fetch_add(1);
        awake_.wait(lock, [&] { return current() != seen; });
        asleep_.fetch_sub(1);
        return current();
    }

    uint32_t current() const {
        return static_cast<uint32_t>(ticket_.load(std::memory_order_acquire) >> 32);
    }

    std::mutex jobs_;
    int workers_ = 0;

    std::atomic<uint64_t> ticket_{NOTHING};
    std::atomic<int> unfinished_{0};
    std::atomic<int> looking_{0};
    Task task_ = nullptr;
    const void* job_ = nullptr;
    int pieces_ = 0;
    int helpers_ = 0;

    std::mutex sleep_;
    std::condition_variable awake_;
    std::atomic<int> asleep_{0};
};

// The pool is never destroyed, because its threads outlive main. A forked child has none of these
// threads, so it makes a pool of its own.
Pool& pool() {
    static std::mutex mutex;
    static Pool* instance = nullptr;
    static pid_t owner = 0;
    std::lock_guard<std::mutex> lock(mutex);
    if (instance == nullptr || owner != getpid()) {
        instance = new Pool;
        owner = getpid();
    }
    return *instance;
}

}  // namespace

void parallel(int threads, int pieces, Task task, const void* job) {
    if (threads > 1 && pieces > 1) {
        pool().run(threads, pieces, task, job);
    } else {
        for (int piece = 0; piece < pieces; piece++) task(job, piece);
    }
}

}  // namespace glm4q
