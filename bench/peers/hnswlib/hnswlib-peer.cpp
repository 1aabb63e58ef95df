// hnswlib as a C++ program would use it: one thread, cosine as the inner product of unit vectors, nothing in between.
// It is asked in lines on stdin and answers each with one line on stdout, so that the rounds of a bench can alternate with
// it. Files of vectors are raw float32 of this machine, row after row. Times are in nanoseconds.
//
//   build DIMENSION M EF_CONSTRUCTION ROOM FILE   -> built NANOSECONDS BYTES   (labels are row numbers)
//   probes FILE                                   -> probes COUNT
//   fresh FILE                                    -> fresh COUNT
//   find EF K                                     -> found LABEL ... ; LABEL ... (of each probe, nearest first)
//   query EF K FROM COUNT                         -> times NANOSECONDS ...     (probes FROM, FROM + 1, ... in a circle)
//   add FROM COUNT                                -> times NANOSECONDS ...     (fresh vectors, beside those that are there)
//   delete FROM COUNT                             -> times NANOSECONDS ...     (marks the labels FROM, FROM + 1, ...)
//   save FILE                                     -> times NANOSECONDS
//   load FILE                                     -> times NANOSECONDS         (into an index that is dropped again)
//
// Anything that goes wrong is answered with "error MESSAGE" and ends the program.

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "hnswlib.h"

using Clock = std::chrono::steady_clock;
using Index = hnswlib::HierarchicalNSW<float>;

// At least 1: a clock may stand still for what is done in less, and times are divided by each other.
static int64_t nanoseconds_since(Clock::time_point start) {
    const auto passed = std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - start);
    return std::max<int64_t>(1, passed.count());
}

// Resident memory of this process.
static int64_t resident_bytes() {
    std::ifstream statm("/proc/self/statm");
    int64_t total = 0, resident = 0;
    statm >> total >> resident;
    return resident * sysconf(_SC_PAGESIZE);
}

// Sixteen sums side by side, which the compiler makes one vector of.
static void normalise(const float* from, float* to, size_t dimension) {
    float sums[16] = {};
    size_t i = 0;
    for (; i + 16 <= dimension; i += 16)
        for (size_t j = 0; j < 16; j++) sums[j] += from[i + j] * from[i + j];
    float sum = 0;
    for (; i < dimension; i++) sum += from[i] * from[i];
    for (const float each : sums) sum += each;
    const float scale = 1.0f / (std::sqrt(sum) + 1e-30f);
    for (i = 0; i < dimension; i++) to[i] = from[i] * scale;
}

static std::vector<float> read_all(const std::string& path, size_t dimension) {
    std::ifstream file(path, std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error("cannot read " + path);
    const size_t bytes = static_cast<size_t>(file.tellg());
    if (bytes % (dimension * sizeof(float)) != 0) throw std::runtime_error("half a vector in " + path);
    std::vector<float> vectors(bytes / sizeof(float));
    file.seekg(0);
    file.read(reinterpret_cast<char*>(vectors.data()), static_cast<std::streamsize>(bytes));
    if (!file) throw std::runtime_error("cannot read all of " + path);
    return vectors;
}

class Peer {
  public:
    std::string answer(const std::string& line) {
        std::istringstream words(line);
        std::string what;
        words >> what;
        if (what == "build") return build(words);
        if (!index_) throw std::runtime_error("build comes first");
        if (what == "probes") return "probes " + std::to_string(take(words, probes_));
        if (what == "fresh") return "fresh " + std::to_string(take(words, fresh_));
        if (what == "find") return find(words);
        if (what == "query") return query(words);
        if (what == "add") return add(words);
        if (what == "delete") return remove(words);
        if (what == "save") return save(words);
        if (what == "load") return load(words);
        throw std::runtime_error("unknown: " + line);
    }

  private:
    size_t dimension_ = 0;
    size_t built_ = 0;
    std::unique_ptr<hnswlib::InnerProductSpace> space_;
    std::unique_ptr<Index> index_;
    std::vector<float> probes_, fresh_, unit_;

    template <typename T>
    static T next(std::istringstream& words) {
        T value;
        if (!(words >> value)) throw std::runtime_error("a word is missing");
        return value;
    }

    // A path is the rest of the line: it may hold spaces.
    static std::string path(std::istringstream& words) {
        std::string rest;
        std::getline(words >> std::ws, rest);
        return rest;
    }

    // Read row by row, so that the vectors are in memory once: in the index.
    std::string build(std::istringstream& words) {
        dimension_ = next<size_t>(words);
        const auto m = next<size_t>(words);
        const auto ef_construction = next<size_t>(words);
        const auto room = next<size_t>(words);
        const std::string from = path(words);
        std::ifstream file(from, std::ios::binary);
        if (!file) throw std::runtime_error("cannot read " + from);
        unit_.resize(dimension_);
        std::vector<float> row(dimension_);
        const int64_t before = resident_bytes();
        int64_t took = 0;
        auto start = Clock::now();
        space_ = std::make_unique<hnswlib::InnerProductSpace>(dimension_);
        index_ = std::make_unique<Index>(space_.get(), room, m, ef_construction);
        took += nanoseconds_since(start);
        built_ = 0;
        const auto bytes = static_cast<std::streamsize>(dimension_ * sizeof(float));
        while (file.read(reinterpret_cast<char*>(row.data()), bytes)) {
            start = Clock::now();
            normalise(row.data(), unit_.data(), dimension_);
            index_->addPoint(unit_.data(), built_);
            took += nanoseconds_since(start);
            built_++;
        }
        if (file.gcount() != 0) throw std::runtime_error("half a vector in " + from);
        return "built " + std::to_string(took) + " " + std::to_string(resident_bytes() - before);
    }

    size_t take(std::istringstream& words, std::vector<float>& into) {
        into = read_all(path(words), dimension_);
        if (into.empty()) throw std::runtime_error("no vectors");
        return into.size() / dimension_;
    }

    const float* row_of(const std::vector<float>& vectors, size_t n) const {
        if (vectors.empty()) throw std::runtime_error("no vectors were given");
        return vectors.data() + (n % (vectors.size() / dimension_)) * dimension_;
    }

    std::string find(std::istringstream& words) {
        index_->setEf(next<size_t>(words));
        const auto k = next<size_t>(words);
        std::string labels = "found";
        for (size_t n = 0; n * dimension_ < probes_.size(); n++) {
            if (n > 0) labels += " ;";
            normalise(row_of(probes_, n), unit_.data(), dimension_);
            for (const auto& each : index_->searchKnnCloserFirst(unit_.data(), k))
                labels += " " + std::to_string(each.second);
        }
        return labels;
    }

    template <typename Work>
    static std::string timed(size_t from, size_t count, Work work) {
        std::string times = "times";
        for (size_t n = from; n < from + count; n++) {
            const auto start = Clock::now();
            work(n);
            times += " " + std::to_string(nanoseconds_since(start));
        }
        return times;
    }

    std::string query(std::istringstream& words) {
        index_->setEf(next<size_t>(words));
        const auto k = next<size_t>(words);
        const auto from = next<size_t>(words);
        const auto count = next<size_t>(words);
        size_t found = 0;
        const std::string times = timed(from, count, [&](size_t n) {
            normalise(row_of(probes_, n), unit_.data(), dimension_);
            found += index_->searchKnnCloserFirst(unit_.data(), k).size();
        });
        // What it found is used, so that no compiler may leave the search out.
        if (count > 0 && found == 0) throw std::runtime_error("nothing was found");
        return times;
    }

    std::string add(std::istringstream& words) {
        const auto from = next<size_t>(words);
        const auto count = next<size_t>(words);
        return timed(from, count, [&](size_t n) {
            normalise(row_of(fresh_, n), unit_.data(), dimension_);
            index_->addPoint(unit_.data(), built_ + n);
        });
    }

    std::string remove(std::istringstream& words) {
        const auto from = next<size_t>(words);
        const auto count = next<size_t>(words);
        return timed(from, count, [&](size_t n) { index_->markDelete(n); });
    }

    std::string save(std::istringstream& words) {
        const std::string to = path(words);
        return timed(0, 1, [&](size_t) { index_->saveIndex(to); });
    }

    std::string load(std::istringstream& words) {
        const std::string from = path(words);
        std::unique_ptr<Index> loaded;
        return timed(0, 1, [&](size_t) { loaded = std::make_unique<Index>(space_.get(), from); });
    }
};

int main() {
    Peer peer;
    std::string line;
    while (std::getline(std::cin, line)) {
        try {
            std::cout << peer.answer(line) << std::endl;
        } catch (const std::exception& error) {
            std::cout << "error " << error.what() << std::endl;
            return 1;
        }
    }
}
