// SPDX-License-Identifier: LGPL-2.1-or-later
#include "job/survey.h"

#include <linux/kernel-page-flags.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <tuple>

namespace fpolicy::job {
namespace {

constexpr std::size_t pages_at_a_time = 65536;
// Mappings of a program and its libraries lie side by side: one call for those of this size that are this
// close.
constexpr std::uint64_t small_pages = 1024;
constexpr std::uint64_t close_pages = 64;
constexpr std::uint64_t huge = 512;  // pages of a huge page on x86; folios of other sizes are found as well

constexpr bool has(std::uint64_t flags, unsigned bit) {
  return (flags >> bit & 1U) != 0;
}

bool of_no_file(const MigrateGroup& group) {
  return group.kind == MappingKind::anonymous || group.kind == MappingKind::heap ||
         group.kind == MappingKind::stack;
}

bool interleaves(const Rule& rule) {
  return rule.decision == MigrateDecision::placement && rule.target.mode == Mode::interleave;
}

bool is_tail(std::uint64_t flags) {
  return has(flags, KPF_COMPOUND_TAIL);
}
bool is_compound(std::uint64_t flags) {
  return has(flags, KPF_COMPOUND_HEAD) || is_tail(flags);
}

void count(std::vector<std::uint64_t>& pages, unsigned node) {
  if (node >= pages.size()) pages.resize(node + 1);
  ++pages[node];
}

/// Calls `read` for stretches of frames that hold all of `frames` (ascending), and `each` with the index of a
/// frame and its word. What lies between two close frames is read as well: that is cheaper than a call.
template <class Read, class Each>
int read_scattered(const std::vector<std::uint64_t>& frames, std::vector<std::uint64_t>& words,
                   const Read& read, const Each& each) {
  constexpr std::uint64_t close = 64;
  for (std::size_t first = 0; first < frames.size();) {
    std::size_t end = first + 1;
    while (end < frames.size() && frames[end] - frames[end - 1] <= close &&
           frames[end] - frames[first] < pages_at_a_time) {
      ++end;
    }
    words.resize(frames[end - 1] - frames[first] + 1);
    if (const int error = read(frames[first], std::span(words)); error != 0) return error;
    for (std::size_t i = first; i < end; ++i) each(i, words[frames[i] - frames[first]]);
    first = end;
  }
  return 0;
}

}  // namespace

Survey::Survey(sys::PageFrames& frames, const Topology& topology, const NodePairing& pairing,
               std::span<const GroupRule> rules, std::span<MigrateGroup> groups,
               std::vector<MigrateMapping>* mappings, const SurveyOptions& options)
    : frames_(frames),
      topology_(topology),
      pairing_(pairing),
      rules_(rules),
      groups_(groups),
      mappings_(mappings),
      options_(options),
      page_size_(static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))),
      smallest_private_folio_(frames.smallest_private_folio()),
      files_(rules.size()) {}

Survey::~Survey() = default;

Status Survey::add(std::uint32_t process, sys::ProcessPages& pages, std::span<const Mapped> mapped) {
  std::vector<const Mapped*> small;  // that are not read yet
  for (const Mapped& mapping : mapped) {
    const Rule& rule = rules_[mapping.group].rule;
    if (rule.decision == MigrateDecision::skip && rule.private_stays) continue;
    const bool is_small = mapping.end - mapping.start <= small_pages * page_size_;
    if (!small.empty() && (!is_small || mapping.start - small.back()->end > close_pages * page_size_ ||
                           mapping.end - small.front()->start > pages_at_a_time * page_size_))
      add_small(process, pages, small);
    if (is_small) {
      small.push_back(&mapping);
    } else {
      const int error = pages.present(
          mapping.start, mapping.end,
          [&](std::uint64_t start, std::uint64_t end) { add_range(process, pages, mapping, start, end); });
      if (error != 0 && error_ == 0) error_ = error;
    }
    if (error_ != 0) break;
  }
  if (!small.empty() && error_ == 0) add_small(process, pages, small);
  // A process that ends meanwhile has no pages any more.
  if (error_ == ESRCH) error_ = 0;
  if (error_ != 0) return fail_errno("read", "pagemap", error_);
  flush();
  return {};
}

void Survey::add_small(std::uint32_t process, sys::ProcessPages& pages, std::vector<const Mapped*>& small) {
  const std::uint64_t start = small.front()->start;
  entries_.resize((small.back()->end - start) / page_size_);
  error_ = pages.entries(start, entries_);
  for (const Mapped* mapping : small) {
    if (error_ != 0) break;
    add_entries(process, pages, *mapping, mapping->start,
                std::span(entries_).subspan((mapping->start - start) / page_size_,
                                            (mapping->end - mapping->start) / page_size_));
  }
  small.clear();
}

void Survey::add_range(std::uint32_t process, sys::ProcessPages& pages, const Mapped& mapped,
                       std::uint64_t start, std::uint64_t end) {
  for (std::uint64_t from = start; from < end && error_ == 0;) {
    const std::size_t count = std::min<std::uint64_t>((end - from) / page_size_, pages_at_a_time);
    entries_.resize(count);
    error_ = pages.entries(from, entries_);
    if (error_ == 0) add_entries(process, pages, mapped, from, entries_);
    from += count * page_size_;
  }
}

void Survey::add_entries(std::uint32_t process, sys::ProcessPages& pages, const Mapped& mapped,
                         std::uint64_t start, std::span<const sys::PageEntry> entries) {
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const sys::PageEntry entry = entries[i];
    if (!entry.present()) continue;
    if (entry.frame() == 0) {
      error_ = EPERM;
      return;
    }
    const std::uint64_t address = start + i * page_size_;
    const int node = node_of(entry.frame(), address, pages);
    if (node < 0) {
      ++groups_[mapped.group].counts.skipped;
      continue;
    }
    add_page(process, mapped, address, entry, static_cast<unsigned>(node));
  }
}

int Survey::node_of(std::uint64_t frame, std::uint64_t address, sys::ProcessPages& pages) {
  if (frame >= last_range_.first && frame < last_range_.end) return static_cast<int>(last_range_.node);
  const auto range = std::ranges::upper_bound(topology_.frames, frame, {}, &PfnRange::end);
  if (range != topology_.frames.end() && frame >= range->first) {
    last_range_ = *range;
    return static_cast<int>(range->node);
  }
  // Not in a memory block that one node has alone: the kernel knows.
  auto* where = reinterpret_cast<void*>(address);  // NOLINT(performance-no-int-to-ptr): of another process
  int node = -ENOENT;
  return pages.locate({&where, 1}, {&node, 1}) == 0 ? node : -ENOENT;
}

void Survey::add_page(std::uint32_t process, const Mapped& mapped, std::uint64_t address,
                      sys::PageEntry entry, unsigned node) {
  const GroupRule& rule = rules_[mapped.group];
  const std::uint64_t index = (mapped.offset + (address - mapped.start)) / page_size_;
  if (mappings_ != nullptr) ++(*mappings_)[mapped.mapping].resident;
  // In memory of no file, what is not private is the huge zero page.
  if (entry.of_file() && (rule.rule.decision == MigrateDecision::skip || of_no_file(groups_[mapped.group]))) {
    ++groups_[mapped.group].counts.skipped;
    return;
  }
  // Interleaved pages go by their folio's index, which is known at the end.
  if (!entry.exclusive() || (entry.of_file() && interleaves(rule.rule))) {
    Shared& page = entry.of_file() ? shared_file_page(mapped.group, index) : private_[entry.frame()];
    if (page.count++ == 0) {
      page.address = address;
      page.frame = entry.frame();
      page.process = process;
      page.mapping = mapped.mapping;
      page.group = mapped.group;
      page.node = static_cast<std::uint16_t>(node);
    }
    return;
  }
  unsigned target = entry.of_file() ? target_of_file_page(rule.rule, pairing_, index, node, true)
                                    : target_of_private_page(rule.rule, pairing_, node);
  if (options_.not_to.contains(target)) target = node;
  account(mapped.group, mapped.mapping, node, target);
  if (target != node) {
    move({.address = address,
          .frame = entry.frame(),
          .pages = 1,
          .index = index,
          .process = process,
          .group = mapped.group,
          .mapping = mapped.mapping,
          .source = static_cast<std::uint16_t>(node),
          .target = static_cast<std::uint16_t>(target),
          .of_file = entry.of_file()});
  } else if (options_.leaving.contains(node)) {
    if (entry.of_file())
      stay(mapped.group, index);
    else
      ++groups_[mapped.group].counts.forced;
  }
}

Survey::Shared& Survey::shared_file_page(std::uint32_t group, std::uint64_t index) {
  const std::uint64_t number = index / block_pages;
  if (last_ == nullptr || last_group_ != group || last_block_ != number) {
    auto& block = files_[group][number];
    if (!block) block = std::make_unique<Block>();
    last_ = block.get();
    last_group_ = group;
    last_block_ = number;
  }
  return (*last_)[index % block_pages];
}

void Survey::account(std::uint32_t group, std::uint32_t mapping, unsigned node, unsigned target) {
  MigrateGroup& into = groups_[group];
  count(into.before, node);
  count(into.after, target);
  // Pages that do not move after all are counted back to where they were (move_runs).
  if (into.after.size() <= node) into.after.resize(node + 1);
  if (target == node) {
    ++into.counts.stayed;
    return;
  }
  ++into.counts.moved;
  if (mappings_ != nullptr) ++(*mappings_)[mapping].moves;
}

void Survey::stay(std::uint32_t group, std::uint64_t index) {
  if (!rules_[group].holdable) {
    ++groups_[group].counts.forced;
    return;
  }
  if (!stays_.empty() && stays_.back().group == group && stays_.back().first + stays_.back().count == index)
    ++stays_.back().count;
  else
    stays_.push_back({group, index, 1});
}

void Survey::move(const Pending& page) {
  Pending& run = pending_;
  if (run.pages > 0 && page.process == run.process && page.group == run.group && page.source == run.source &&
      page.target == run.target && page.of_file == run.of_file && page.frame == run.frame + run.pages &&
      page.address == run.address + run.pages * page_size_ &&
      (!page.of_file || (page.mapping == run.mapping && page.index == run.index + run.pages))) {
    ++run.pages;
    return;
  }
  flush();
  run = page;
}

void Survey::flush() {
  const std::uint64_t pages = std::exchange(pending_.pages, 0);
  if (pages == 0) return;
  if (pending_.of_file) return flush_file(pages);
  if (pages < smallest_private_folio_) return append(0, pages, 1);
  if (smallest_private_folio_ < huge) {
    words_.resize(pages);
    if (frames_.flags(pending_.frame, words_) != 0) return append(0, pages, 1);
    for (std::uint64_t first = 0; first < pages;) {
      const std::uint64_t end = end_of_folio(first, pages);
      append(first, end - first, end - first);
      first = end;
    }
    return;
  }
  // Only huge pages can be folios here, and those are aligned: a word for each is enough.
  const auto flags = [this](std::uint64_t page) {
    std::uint64_t word = 0;
    return frames_.flags(pending_.frame + page, {&word, 1}) == 0 ? word : 0;
  };
  for (std::uint64_t first = 0; first < pages;) {
    const std::uint64_t to_aligned = (huge - (pending_.frame + first) % huge) % huge;
    if (to_aligned > 0) {
      const std::uint64_t small = std::min(to_aligned, pages - first);
      append(first, small, 1);
      first += small;
      continue;
    }
    if (pages - first < huge || !has(flags(first), KPF_COMPOUND_HEAD)) {
      const std::uint64_t small = std::min(huge, pages - first);
      append(first, small, 1);
      first += small;
      continue;
    }
    std::uint64_t size = huge;
    while (first + size < pages && has(flags(first + size), KPF_COMPOUND_TAIL)) size += huge;
    size = std::min(size, pages - first);
    append(first, size, size);
    first += size;
  }
}

std::uint64_t Survey::end_of_folio(std::uint64_t first, std::uint64_t pages) const {
  std::uint64_t end = first + 1;
  // A run may begin in the middle of a folio: its pages go along with the first that is named.
  if (is_compound(words_[first])) {
    while (end < pages && is_tail(words_[end])) ++end;
  }
  return end;
}

void Survey::flush_file(std::uint64_t pages) {
  const bool whole_only = !finishing_ && needs_to_be_alone(pending_.group);
  if (pages == 1 && !whole_only) return append(0, 1, 1);
  words_.resize(pages + 1);  // the word behind tells whether the last folio goes on
  if (frames_.flags(pending_.frame, words_) != 0) return append(0, pages, 1);
  for (std::uint64_t first = 0; first < pages;) {
    const std::uint64_t end = end_of_folio(first, pages);
    const bool in_part =
        is_compound(words_[first]) && (is_tail(words_[first]) || (end == pages && is_tail(words_[end])));
    // A folio moves whole: what else is in it may be mapped by others, and is known at the end.
    if (whole_only && in_part)
      defer(first, end - first);
    else
      append(first, end - first, end - first);
    first = end;
  }
}

bool Survey::needs_to_be_alone(std::uint32_t group) const {
  return rules_[group].rule.decision == MigrateDecision::exclusive || options_.own_pages_only;
}

void Survey::defer(std::uint64_t offset, std::uint64_t pages) {
  MigrateGroup& group = groups_[pending_.group];
  group.before[pending_.source] -= pages;
  group.after[pending_.target] -= pages;
  group.counts.moved -= pages;
  if (mappings_ != nullptr) (*mappings_)[pending_.mapping].moves -= pages;
  for (std::uint64_t i = offset; i < offset + pages; ++i) {
    Shared& page = shared_file_page(pending_.group, pending_.index + i);
    if (page.count++ > 0) continue;
    page.address = pending_.address + i * page_size_;
    page.frame = pending_.frame + i;
    page.process = pending_.process;
    page.mapping = pending_.mapping;
    page.group = pending_.group;
    page.node = pending_.source;
  }
}

void Survey::append(std::uint64_t offset, std::uint64_t pages, std::uint64_t folio) {
  const std::uint64_t address = pending_.address + offset * page_size_;
  constexpr std::uint64_t most = 1U << 30U;
  if (!moves_.empty()) {
    MoveRun& last = moves_.back();
    if (last.process == pending_.process && last.group == pending_.group && last.source == pending_.source &&
        last.target == pending_.target && last.folio == folio && last.pages + pages < most &&
        last.address + last.pages * page_size_ == address) {
      last.pages += static_cast<std::uint32_t>(pages);
      return;
    }
  }
  if (moves_.empty()) moves_.reserve(4096);
  moves_.push_back({.address = address,
                    .process = pending_.process,
                    .group = pending_.group,
                    .pages = static_cast<std::uint32_t>(pages),
                    .folio = static_cast<std::uint32_t>(folio),
                    .source = pending_.source,
                    .target = pending_.target});
}

Status Survey::finish() {
  finishing_ = true;
  if (auto done = finish_files(); !done) return done;
  if (auto done = finish_private(); !done) return done;
  flush();
  sort_stays();
  return {};
}

Result<std::vector<bool>> Survey::exclusive(std::span<const Shared* const> pages) {
  const std::vector<std::size_t> order = by_frame(pages, false);
  std::vector<std::uint64_t> frames;
  frames.reserve(order.size());
  for (const std::size_t i : order) frames.push_back(pages[i]->frame);
  std::vector<bool> alone(pages.size(), false);
  const int error = read_scattered(
      frames, words_,
      [this](std::uint64_t pfn, std::span<std::uint64_t> words) { return frames_.mapped(pfn, words); },
      [&](std::size_t i, std::uint64_t mapped) { alone[order[i]] = mapped <= pages[order[i]]->count; });
  if (error != 0) return fail_errno("read", "/proc/kpagecount", error);
  return alone;
}

std::vector<std::size_t> Survey::by_frame(std::span<const Shared* const> pages, bool all) const {
  std::vector<std::size_t> order;
  order.reserve(pages.size());
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const Shared& page = *pages[i];
    if (all || options_.own_pages_only || interleaves(rules_[page.group].rule) ||
        pairing_.target(page.node) != page.node)
      order.push_back(i);
  }
  std::ranges::sort(order, {}, [&](std::size_t i) { return pages[i]->frame; });
  return order;
}

Result<std::vector<Survey::Folio>> Survey::folios(std::span<const Shared* const> pages) {
  const std::vector<std::size_t> order = by_frame(pages, false);
  std::vector<std::uint64_t> frames;
  frames.reserve(order.size());
  for (const std::size_t i : order) frames.push_back(pages[i]->frame);
  std::vector<bool> compound(pages.size(), false);
  const int error = read_scattered(
      frames, words_,
      [this](std::uint64_t pfn, std::span<std::uint64_t> words) { return frames_.flags(pfn, words); },
      [&](std::size_t i, std::uint64_t flags) { compound[i] = is_compound(flags); });
  if (error != 0) return fail_errno("read", "/proc/kpageflags", error);
  std::vector<Folio> folios;
  for (std::size_t i = 0; i < order.size();) {
    if (!compound[i]) {
      ++i;
      continue;
    }
    Folio folio;
    if (const int failed = find_folio(frames[i], folio.head, folio.end); failed != 0)
      return fail_errno("read", "/proc/kpageflags", failed);
    for (; i < order.size() && frames[i] < folio.end; ++i) folio.pages.push_back(order[i]);
    folios.push_back(std::move(folio));
  }
  return folios;
}

int Survey::find_folio(std::uint64_t frame, std::uint64_t& head, std::uint64_t& end) {
  constexpr std::uint64_t step = 512;
  head = frame;
  for (bool found = false; !found && head > 0;) {
    // Up to and with `head`, backwards.
    const std::uint64_t first = head + 1 - std::min(head + 1, step);
    words_.resize(head + 1 - first);
    if (const int error = frames_.flags(first, words_); error != 0) return error;
    std::size_t i = words_.size() - 1;
    while (i > 0 && is_tail(words_[i])) --i;
    found = !is_tail(words_[i]);
    head = first + i;
    if (!found && head > 0) --head;
  }
  end = frame + 1;
  while (true) {
    words_.resize(step);
    if (const int error = frames_.flags(end, words_); error != 0) return error;
    const auto behind = std::ranges::find_if(words_, [](std::uint64_t flags) { return !is_tail(flags); });
    end += static_cast<std::uint64_t>(behind - words_.begin());
    if (behind != words_.end()) return 0;
  }
}

Result<bool> Survey::is_alone(const Folio& folio, std::span<const Shared* const> pages) {
  words_.resize(folio.end - folio.head);
  if (const int error = frames_.mapped(folio.head, words_); error != 0)
    return fail_errno("read", "/proc/kpagecount", error);
  for (const std::size_t i : folio.pages) {
    std::uint64_t& mapped = words_[pages[i]->frame - folio.head];
    mapped -= std::min<std::uint64_t>(mapped, pages[i]->count);
  }
  return std::ranges::all_of(words_, [](std::uint64_t mapped) { return mapped == 0; });
}

Status Survey::finish_files() {
  std::vector<const Shared*> pages;
  std::vector<std::uint64_t> indices;
  for (std::uint32_t group = 0; group < files_.size(); ++group) {
    Blocks& blocks = files_[group];
    std::vector<std::uint64_t> numbers;
    numbers.reserve(blocks.size());
    for (const auto& [number, block] : blocks) numbers.push_back(number);
    std::ranges::sort(numbers);
    pages.clear();
    indices.clear();
    for (const std::uint64_t number : numbers) {
      const Block& block = *blocks[number];
      for (std::uint64_t i = 0; i < block_pages; ++i) {
        if (block[i].count == 0) continue;
        pages.push_back(&block[i]);
        indices.push_back(number * block_pages + i);
      }
    }
    std::vector<bool> alone(pages.size(), false);
    std::vector<std::uint64_t> slots = indices;
    const Rule& rule = rules_[group].rule;
    const bool to_be_alone = needs_to_be_alone(group);
    if (to_be_alone) {
      auto known = exclusive(pages);
      if (!known) return tl::unexpected(known.error());
      alone = *std::move(known);
    }
    if (!pages.empty() && (to_be_alone || interleaves(rule))) {
      auto large = folios(pages);
      if (!large) return tl::unexpected(large.error());
      for (const Folio& folio : *large) {
        const auto whole = to_be_alone ? is_alone(folio, pages) : Result<bool>(true);
        if (!whole) return tl::unexpected(whole.error());
        for (const std::size_t i : folio.pages) {
          alone[i] = *whole;
          // All go where the first would go.
          const std::uint64_t offset = pages[i]->frame - folio.head;
          slots[i] = indices[i] - std::min(indices[i], offset);
        }
      }
    }
    for (std::size_t i = 0; i < pages.size(); ++i) {
      const Shared& page = *pages[i];
      unsigned target = target_of_file_page(rule, pairing_, slots[i], page.node, alone[i]);
      // The kernel moves what several processes map for nobody who may not say so.
      if (options_.own_pages_only && (!alone[i] || page.count > 1)) target = page.node;
      enter(page, target, indices[i], true);
      if (target == page.node && options_.leaving.contains(page.node)) stay(group, indices[i]);
    }
    blocks.clear();
  }
  last_ = nullptr;
  return {};
}

Status Survey::finish_private() {
  std::vector<const Shared*> pages;
  pages.reserve(private_.size());
  for (const auto& [frame, page] : private_) pages.push_back(&page);
  // In the order in which they are moved.
  std::ranges::sort(pages, {}, [](const Shared* page) { return std::tuple(page->process, page->address); });
  std::vector<bool> alone(pages.size(), true);
  if (options_.own_pages_only) {
    auto known = exclusive(pages);
    if (!known) return tl::unexpected(known.error());
    alone = *std::move(known);
  }
  // The zero page, and memory of devices that no file shows: not private memory though no file's.
  const std::vector<std::size_t> order = by_frame(pages, true);
  std::vector<std::uint64_t> frames;
  frames.reserve(order.size());
  for (const std::size_t i : order) frames.push_back(pages[i]->frame);
  std::vector<bool> memory(pages.size(), false);
  const int error = read_scattered(
      frames, words_,
      [this](std::uint64_t pfn, std::span<std::uint64_t> words) { return frames_.flags(pfn, words); },
      [&](std::size_t i, std::uint64_t flags) {
        memory[order[i]] = has(flags, KPF_ANON) && !has(flags, KPF_ZERO_PAGE);
      });
  if (error != 0) return fail_errno("read", "/proc/kpageflags", error);
  for (std::size_t i = 0; i < pages.size(); ++i) {
    const Shared& page = *pages[i];
    if (!memory[i]) {
      ++groups_[page.group].counts.skipped;
      continue;
    }
    const bool may = alone[i] && (!options_.own_pages_only || page.count == 1);
    const unsigned target =
        may ? target_of_private_page(rules_[page.group].rule, pairing_, page.node) : page.node;
    enter(page, target, 0, false);
    if (target == page.node && options_.leaving.contains(page.node)) ++groups_[page.group].counts.forced;
  }
  private_.clear();
  return {};
}

void Survey::enter(const Shared& page, unsigned target, std::uint64_t index, bool of_file) {
  if (options_.not_to.contains(target)) target = page.node;
  account(page.group, page.mapping, page.node, target);
  if (target == page.node) return;
  move({.address = page.address,
        .frame = page.frame,
        .pages = 1,
        .index = index,
        .process = page.process,
        .group = page.group,
        .mapping = page.mapping,
        .source = page.node,
        .target = static_cast<std::uint16_t>(target),
        .of_file = of_file});
}

void Survey::sort_stays() {
  std::ranges::sort(stays_, {}, [](const StayRun& run) { return std::tuple(run.group, run.first); });
  std::vector<StayRun> joined;
  for (const StayRun& run : stays_) {
    if (!joined.empty() && joined.back().group == run.group &&
        joined.back().first + joined.back().count >= run.first) {
      StayRun& last = joined.back();
      last.count = std::max(last.first + last.count, run.first + run.count) - last.first;
    } else {
      joined.push_back(run);
    }
  }
  stays_ = std::move(joined);
}

}  // namespace fpolicy::job
