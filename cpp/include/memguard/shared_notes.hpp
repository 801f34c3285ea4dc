// SharedNotes: what is told about the newest transitions of a breaker: why, when, how many
// failures, the last error. For people; nothing is decided from it.
//
// write(): the winner of a transition, after it. read(): anybody; what is half written, or of
// another transition, is not found. Texts are clipped to whole characters of UTF-8.
#pragma once

#include <algorithm>    // std::min
#include <array>        // std::array
#include <atomic>       // std::atomic
#include <cstddef>      // std::size_t
#include <cstdint>      // std::uint64_t
#include <cstring>      // std::memcpy
#include <string_view>  // std::string_view

#include "memguard/config.hpp"
#include "memguard/transitions.hpp"

namespace memguard {

// A text in words that are stored and loaded one by one.
template <std::size_t Bytes>
class SharedText {
    static_assert(Bytes % sizeof(std::uint64_t) == 0);

  public:
    static constexpr std::size_t kBytes = Bytes;

    void write(std::string_view text) noexcept {
        std::size_t length = std::min(text.size(), Bytes);
        // Not within a character: its bytes but the first begin with the bits 10.
        while (length < text.size() && length > 0 &&
               (static_cast<unsigned char>(text[length]) & 0xC0U) == 0x80U) {
            --length;
        }
        std::array<std::uint64_t, Bytes / sizeof(std::uint64_t)> words{};
        std::memcpy(words.data(), text.data(), length);
        // release, both: pairs with the acquire loads in read()
        length_.store(length, std::memory_order_release);
        for (std::size_t i = 0; i < words.size(); ++i) {
            words_[i].store(words[i], std::memory_order_release);
        }
    }

    // Copies it to `out`, Bytes long; returns its length.
    std::size_t read(char* out) const noexcept {
        // acquire, both: pairs with the release stores in write()
        const std::uint64_t length = length_.load(std::memory_order_acquire);
        for (std::size_t i = 0; i < words_.size(); ++i) {
            const std::uint64_t word = words_[i].load(std::memory_order_acquire);
            std::memcpy(out + i * sizeof word, &word, sizeof word);
        }
        return std::min<std::uint64_t>(length, Bytes);
    }

  private:
    std::atomic<std::uint64_t> length_{0};
    std::array<std::atomic<std::uint64_t>, Bytes / sizeof(std::uint64_t)> words_{};
};

struct Note {
    std::uint64_t generation = 0;  // of the word after the transition, widened to 64 bits
    bool is_opening = false;
    Event reason = Event::none;
    std::int64_t wall_ns = 0;
    std::uint64_t failure_count = 0;
    std::string_view error_type;  // empty: no exception
    std::string_view error_text;
    std::string_view detail;  // empty: none
};

class SharedNotes {
  public:
    // So many transitions are kept.
    static constexpr std::size_t kKept = 8;
    // The bytes that read() needs for the texts of a note.
    static constexpr std::size_t kErrorTypeBytes = 64;
    static constexpr std::size_t kErrorTextBytes = 160;
    static constexpr std::size_t kDetailBytes = 160;
    using Buffer = std::array<char, kErrorTypeBytes + kErrorTextBytes + kDetailBytes>;

    void write(const Note& note) noexcept {
        Entry& entry = entries_[note.generation % kKept];
        // relaxed: the release stores of what follows come after it
        entry.stamp.store(0, std::memory_order_relaxed);
        // release, all: pairs with the acquire loads in read()
        entry.what.store(static_cast<std::uint64_t>(note.reason) |
                             static_cast<std::uint64_t>(note.is_opening) << 8,
                         std::memory_order_release);
        // release, both: pairs with the acquire loads in read()
        entry.wall_ns.store(note.wall_ns, std::memory_order_release);
        entry.failure_count.store(note.failure_count, std::memory_order_release);
        entry.error_type.write(note.error_type);
        entry.error_text.write(note.error_text);
        entry.detail.write(note.detail);
        // release: pairs with the acquire load of the stamp in read()
        entry.stamp.store(note.generation + 1, std::memory_order_release);
    }

    // The note of this generation, its texts in `buffer`; false if it is not there.
    bool read(std::uint64_t generation, Note& note, Buffer& buffer) const noexcept {
        const Entry& entry = entries_[generation % kKept];
        // acquire, all: pairs with the release stores in write()
        const std::uint64_t before = entry.stamp.load(std::memory_order_acquire);
        if (before != generation + 1) {
            return false;
        }
        // acquire, all: pairs with the release stores in write()
        const std::uint64_t what = entry.what.load(std::memory_order_acquire);
        note.generation = generation;
        note.reason = static_cast<Event>(what & 255);
        note.is_opening = (what >> 8 & 1) != 0;
        // acquire, both: pairs with the release stores in write()
        note.wall_ns = entry.wall_ns.load(std::memory_order_acquire);
        note.failure_count = entry.failure_count.load(std::memory_order_acquire);
        char* const type = buffer.data();
        char* const text = type + kErrorTypeBytes;
        char* const detail = text + kErrorTextBytes;
        note.error_type = {type, entry.error_type.read(type)};
        note.error_text = {text, entry.error_text.read(text)};
        note.detail = {detail, entry.detail.read(detail)};
        // relaxed: ordered after the acquire loads above
        return entry.stamp.load(std::memory_order_relaxed) == before;
    }

    // The newest opening up to this generation; false if it is too long ago.
    bool read_opening(std::uint64_t generation, Note& note, Buffer& buffer) const noexcept {
        for (std::uint64_t back = 0; back < kKept && back <= generation; ++back) {
            if (read(generation - back, note, buffer) && note.is_opening) {
                return true;
            }
        }
        return false;
    }

  private:
    struct alignas(kCacheLineBytes) Entry {
        std::atomic<std::uint64_t> stamp{0};  // the generation plus 1; 0: being written, or none
        std::atomic<std::uint64_t> what{0};   // reason 8, is_opening 1
        std::atomic<std::int64_t> wall_ns{0};
        std::atomic<std::uint64_t> failure_count{0};
        SharedText<kErrorTypeBytes> error_type;
        SharedText<kErrorTextBytes> error_text;
        SharedText<kDetailBytes> detail;
    };

    std::array<Entry, kKept> entries_{};
};

}  // namespace memguard
