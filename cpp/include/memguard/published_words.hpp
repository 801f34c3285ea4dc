// PublishedWords<N>: a record of N words that one writer replaces in one step, for any number of
// readers, in memory that outlives them all.
//
// publish(): wait-free; one process and thread at a time, ordered by the caller.
// read():    lock-free, anybody; the words of one publication, never of two.
// version(): wait-free, anybody.
//
// Two copies: the writer fills the idle one and then switches by one store, so that one that is
// killed half-way leaves the record as it was. What the words mean, and whether they are legal, is
// the reader's to say: a stranger may have written them.
#pragma once

#include <array>     // std::array
#include <atomic>    // std::atomic
#include <cstddef>   // std::size_t
#include <cstdint>   // std::uint64_t
#include <optional>  // std::optional

namespace memguard {

template <std::size_t Words>
class PublishedWords {
  public:
    using Record = std::array<std::uint64_t, Words>;

    struct Found {
        std::uint64_t version = 0;
        Record words{};
    };

    // Grows with each publication; 0: none yet.
    [[nodiscard]] std::uint64_t version() const noexcept {
        // pairs with: the release store in publish()
        return version_.load(std::memory_order_acquire);
    }

    // None: nothing was published, or writers are faster than this reader again and again.
    [[nodiscard]] std::optional<Found> read() const noexcept {
        for (int look = 0; look < kMostLooks; ++look) {
            Found found{version(), {}};
            if (found.version == 0) {
                return std::nullopt;
            }
            for (std::size_t i = 0; i < Words; ++i) {
                // acquire: keeps the second look at the version behind it
                found.words[i] = copies_[found.version & 1][i].load(std::memory_order_acquire);
            }
            // relaxed: ordered after the acquire loads above
            if (version_.load(std::memory_order_relaxed) == found.version) {
                return found;
            }
        }
        return std::nullopt;
    }

    // Returns the new version.
    std::uint64_t publish(const Record& words) noexcept {
        const std::uint64_t before = version();
        // Not 0 after the last number, which a stranger may have written: the same copy, as if
        // anew.
        const std::uint64_t next = before == kLastVersion ? 2 : before + 1;
        for (std::size_t i = 0; i < Words; ++i) {
            // release: pairs with the acquire load of the word in read()
            copies_[next & 1][i].store(words[i], std::memory_order_release);
        }
        // pairs with: the acquire load in version()
        version_.store(next, std::memory_order_release);
        return next;
    }

  private:
    static constexpr int kMostLooks = 1000;
    static constexpr std::uint64_t kLastVersion = ~std::uint64_t{0};

    std::atomic<std::uint64_t> version_{0};
    std::array<std::array<std::atomic<std::uint64_t>, Words>, 2> copies_{};
};

}  // namespace memguard
