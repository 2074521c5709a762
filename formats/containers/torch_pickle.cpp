#include "formats/containers/torch_pickle.h"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_set>

#include "compress/core/checked.h"
#include "compress/core/formatted.h"
#include "compress/core/printable.h"

namespace llmpress {
namespace {

constexpr std::size_t kMaxDimensions = 64;  // of torch itself

struct StorageClass {
  std::string_view name;
  std::optional<DType> dtype;  // nullopt: octets
};
constexpr std::array kStorages{
    StorageClass{"torch.FloatStorage", DType::kF32},
    StorageClass{"torch.HalfStorage", DType::kF16},
    StorageClass{"torch.BFloat16Storage", DType::kBF16},
    StorageClass{"torch.DoubleStorage", DType::kF64},
    StorageClass{"torch.LongStorage", DType::kI64},
    StorageClass{"torch.IntStorage", DType::kI32},
    StorageClass{"torch.ShortStorage", DType::kI16},
    StorageClass{"torch.CharStorage", DType::kI8},
    StorageClass{"torch.ByteStorage", DType::kU8},
    StorageClass{"torch.BoolStorage", DType::kBool},
    StorageClass{"torch.UntypedStorage", std::nullopt},
    StorageClass{"torch.storage.UntypedStorage", std::nullopt}};

constexpr std::string_view kTensor = "torch._utils._rebuild_tensor",
                           kTensor2 = "torch._utils._rebuild_tensor_v2",
                           kTensor3 = "torch._utils._rebuild_tensor_v3",
                           kParameter = "torch._utils._rebuild_parameter",
                           kSize = "torch.Size";

// What a training run calls the state of its model.
constexpr std::array<std::string_view, 4> kStateNames{
    "state_dict", "model_state_dict", "model", "module"};

class StateReader {
 public:
  StateReader(const Pickle& pickle, const std::string& where)
      : pickle_(pickle), where_(where) {}

  TorchState run() {
    for (const PickleValue& value : pickle_.values) {
      if (value.kind == PickleKind::kPersistent) add_storage(value);
    }
    const PickleValue& dict = state_dict();
    std::unordered_set<std::string_view> names;
    for (std::size_t i = 0; i + 1 < dict.items.size(); i += 2) {
      const PickleValue& key = pickle_[dict.items[i]];
      if (key.kind != PickleKind::kText) {
        corrupt(key, "a key of the state dict is no text");
      }
      if (!names.insert(key.text).second) {
        corrupt(key, "has '" + printable(key.text) + "' twice");
      }
      state_.tensors.push_back(tensor(pickle_[dict.items[i + 1]], key.text));
    }
    return std::move(state_);
  }

 private:
  struct Storage {
    std::string_view key{};
    std::optional<DType> dtype{};
  };

  [[noreturn]] void refuse(ErrorCode code, const PickleValue& value,
                           const std::string& what) const {
    fail(code, "{}: pickle, octet {}: {}", where_, value.offset, what);
  }
  [[noreturn]] void corrupt(const PickleValue& value,
                            const std::string& what) const {
    refuse(ErrorCode::kCorruptFile, value, what);
  }

  bool calls(const PickleValue& value, std::string_view global) const {
    return value.kind == PickleKind::kCall &&
           pickle_[value.items[0]].text == global;
  }
  bool is_tensor(const PickleValue& value) const {
    return calls(value, kTensor) || calls(value, kTensor2) ||
           calls(value, kTensor3) || calls(value, kParameter);
  }
  const PickleValue& argument(const PickleValue& call, std::size_t i) const {
    const PickleValue& arguments = pickle_[call.items[1]];
    if (i >= arguments.items.size()) corrupt(call, "has too few arguments");
    return pickle_[arguments.items[i]];
  }

  // The dict of the file, or that of the model in a training run's.
  const PickleValue& state_dict() const {
    const PickleValue& root = pickle_[pickle_.root];
    if (root.kind != PickleKind::kDict) {
      refuse(ErrorCode::kUnsupported, root, "holds no dict of tensors");
    }
    for (std::size_t i = 1; i < root.items.size(); i += 2) {
      if (is_tensor(pickle_[root.items[i]])) return root;
    }
    for (const std::string_view name : kStateNames) {
      for (std::size_t i = 0; i + 1 < root.items.size(); i += 2) {
        const PickleValue& key = pickle_[root.items[i]];
        const PickleValue& inner = pickle_[root.items[i + 1]];
        if (key.kind == PickleKind::kText && key.text == name &&
            inner.kind == PickleKind::kDict) {
          return inner;
        }
      }
    }
    return root;
  }

  std::size_t size(const PickleValue& value) const {
    if (value.kind != PickleKind::kInteger || value.integer < 0) {
      corrupt(value, "wanted a size, a whole number from 0 on");
    }
    return static_cast<std::size_t>(value.integer);
  }

  std::vector<std::size_t> sizes(const PickleValue& value) const {
    const PickleValue& list = calls(value, kSize) ? argument(value, 0) : value;
    if ((list.kind != PickleKind::kTuple && list.kind != PickleKind::kList) ||
        list.items.size() > kMaxDimensions) {
      corrupt(value,
              formatted("wanted a tuple of up to {} sizes", kMaxDimensions));
    }
    std::vector<std::size_t> all;
    for (const PickleRef item : list.items) all.push_back(size(pickle_[item]));
    return all;
  }

  const StorageClass& storage_class(const PickleValue& global) const {
    for (const StorageClass& row : kStorages) {
      if (global.kind == PickleKind::kGlobal && row.name == global.text) {
        return row;
      }
    }
    corrupt(global, "wanted a class of storages");
  }

  // ("storage", class, key, device, elements[, None])
  Storage storage(const PickleValue& persistent) const {
    const PickleValue& id = pickle_[persistent.items[0]];
    if (id.kind != PickleKind::kTuple || id.items.size() < 5 ||
        pickle_[id.items[0]].text != "storage" ||
        pickle_[id.items[2]].kind != PickleKind::kText) {
      corrupt(persistent, "a persistent object that is no storage");
    }
    if (id.items.size() > 5 && pickle_[id.items[5]].kind != PickleKind::kNone) {
      refuse(ErrorCode::kUnsupported, persistent,
             "a storage that is a part of another one");
    }
    return {pickle_[id.items[2]].text,
            storage_class(pickle_[id.items[1]]).dtype};
  }

  void add_storage(const PickleValue& persistent) {
    const Storage own = storage(persistent);
    const PickleValue& id = pickle_[persistent.items[0]];
    const std::size_t octets =
        checked_mul(size(pickle_[id.items[4]]),
                    own.dtype ? facts(*own.dtype).bits / 8 : std::size_t{1},
                    where_ + ": storage '" + printable(own.key) + "'");
    const auto [at, added] = state_.storages.emplace(own.key, octets);
    if (!added && at->second != octets) {
      corrupt(persistent,
              "storage '" + printable(own.key) + "' has two different sizes");
    }
  }

  TorchTensor tensor(const PickleValue& value, std::string_view name) const {
    const PickleValue* call = &value;
    if (calls(*call, kParameter)) call = &argument(*call, 0);
    if (!is_tensor(*call) || calls(*call, kParameter)) {
      refuse(ErrorCode::kUnsupported, value,
             "'" + printable(name) + "' is no tensor");
    }
    const PickleValue& stored = argument(*call, 0);
    if (stored.kind != PickleKind::kPersistent) {
      corrupt(stored, "'" + printable(name) + "' has no storage");
    }
    const Storage own = storage(stored);
    TorchTensor tensor{.name = std::string(name),
                       .dtype = own.dtype.value_or(DType::kU8),
                       .storage = own.key,
                       .offset = size(argument(*call, 1)),
                       .shape = sizes(argument(*call, 2)),
                       .strides = sizes(argument(*call, 3))};
    const bool third = calls(*call, kTensor3);
    if (third) tensor.dtype = dtype(argument(*call, 6));
    if (third == own.dtype.has_value()) {
      corrupt(*call, "'" + printable(name) + "' has a storage without a type");
    }
    if (tensor.shape.size() != tensor.strides.size()) {
      corrupt(*call,
              formatted("'{}' has {} sizes and {} strides", printable(name),
                        tensor.shape.size(), tensor.strides.size()));
    }
    check_metadata(*call, third ? 7 : 6, name);
    return tensor;
  }

  // Bits that change what the numbers mean (conjugate, negative).
  void check_metadata(const PickleValue& call, std::size_t place,
                      std::string_view name) const {
    if (pickle_[call.items[1]].items.size() <= place) return;
    const PickleValue& extra = argument(call, place);
    if (extra.kind == PickleKind::kNone ||
        (extra.kind == PickleKind::kDict && extra.items.empty())) {
      return;
    }
    refuse(ErrorCode::kUnsupported, extra,
           "'" + printable(name) + "' is a view that changes its numbers");
  }

  DType dtype(const PickleValue& value) const {
    const auto known = value.kind == PickleKind::kGlobal
                           ? parse_torch_dtype(value.text)
                           : std::nullopt;
    if (!known || facts(*known).bits % 8 != 0) {
      corrupt(value, "wanted a type of numbers");
    }
    return *known;
  }

  const Pickle& pickle_;
  const std::string& where_;
  TorchState state_{};
};

std::vector<std::string> dtype_names() {
  std::vector<std::string> names;
  for (const DTypeFacts& f : all_dtypes()) {
    if (f.bits % 8 == 0 && !f.torch_name.empty()) {
      names.push_back("torch." + std::string(f.torch_name));
    }
  }
  return names;
}

}  // namespace

std::span<const std::string_view> torch_globals() {
  static const std::vector<std::string> kTypes = dtype_names();
  static const std::vector<std::string_view> kAll = [] {
    std::vector<std::string_view> all{kTensor,  kTensor2,
                                      kTensor3, kParameter,
                                      kSize,    "collections.OrderedDict"};
    for (const StorageClass& row : kStorages) all.push_back(row.name);
    all.insert(all.end(), kTypes.begin(), kTypes.end());
    return all;
  }();
  return kAll;
}

TorchState read_torch_state(const Pickle& pickle, const std::string& where) {
  return StateReader(pickle, where).run();
}

}  // namespace llmpress
