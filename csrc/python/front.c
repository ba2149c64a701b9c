/* front.c: coopshm._front, the way of a hit.
 *
 * A hit must cost about what functools.lru_cache costs, and a Python function of a dozen lines costs four times that. So the
 * part that every call goes through is here, over the stable ABI where that has buffers (setup.py asks for it, from CPython 3.11 on): find the value among the hot objects of this process;
 * else find the entry in shared memory, copy it, decode it; else call the method `_cached`, where everything else is.
 *
 * Exact with respect to resets, in three places that look alike: what was found counts only if the generation, loaded
 * afterwards, is the one that this process has `entered`, that is, whose hooks have run here and whose hot objects the tables
 * hold. Nothing is decoded that was not checked, and a decoded value is checked again.
 *
 * Runs under the GIL throughout, which makes a look at the tables and the generation they are of one step for the threads of the
 * process. Python code runs only in `decode`, `_keep`, `_look` and `_cached`, after which nothing is believed that was read
 * before. Not in the look-ups in the tables, which have no reference of their own to them: all keys there are of exact types, whose
 * comparison runs no code but for warnings of python -b, and under that the tables stay empty (store.py).
 * The core's handle and its mapping are never freed.
 *
 * It knows of the core what `attach` hands over, since coopshm._core is another shared object. */
#include "front.h"

/* Formats of values.py that matter here. */
enum { FORMAT_BYTES = 1, FORMAT_STR = 2, FORMAT_PICKLE = 3, FORMAT_BUFFERS = 4, FORMAT_ARRAY = 8 };
/* Values that refer to their payload come back over shared memory from this size on; below, over a copy. A pin, with its view
 * object, costs about as much as copying this much. */
enum { PIN_FROM = 16 * 1024 };

/* Most levels of tuples that are looked into: those of keys.py and hot.py. */
enum { LEVELS = 32 };

static bool is_over_memory(int format) { return format == FORMAT_BUFFERS || format == FORMAT_ARRAY; }

/* ---- generations */

static bool is_now(const uint64_t *word, uint64_t generation) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* what was copied before was loaded before */
    return __atomic_load_n(word, __ATOMIC_ACQUIRE) == generation;
}

/* ---- keys */

/* Keys that can be compared without running anybody's code. Not floats: 0.0 and -0.0 are equal, and two keys. Nor tuples in more than
 * `depth` levels, which are no keys: to look into them, as to hash them, might take more stack than there is. */
static bool is_plain(PyObject *key, int depth) {
    if (front_is_scalar(key) || key == Py_None || key == Py_True || key == Py_False) return true;
    if (!PyTuple_CheckExact(key) || depth == 0) return false;
    Py_ssize_t items = PyTuple_Size(key);
    for (Py_ssize_t i = 0; i < items; i++) {
        PyObject *item = PyTuple_GetItem(key, i);
        if (!front_is_scalar(item) && !is_plain(item, depth - 1)) return false; /* most are scalars: a call less for each */
    }
    return true;
}

/* Are two equal, plain keys the same one? */
static bool same_types(PyObject *a, PyObject *b) {
    if (Py_TYPE(a) != Py_TYPE(b)) return false;
    if (!PyTuple_CheckExact(a)) return true;
    Py_ssize_t items = PyTuple_Size(a);
    for (Py_ssize_t i = 0; i < items; i++)
        if (!same_types(PyTuple_GetItem(a, i), PyTuple_GetItem(b, i))) return false;
    return true;
}

/* ---- hits
 *
 * Each returns a new reference; or NULL, with an exception set if something is to be raised, without one if it was no hit. */

/* `hits`: the count afterwards. */
static PyObject *find_hot(Front *self, PyObject *key, uint64_t *hits) {
    PyObject *value;
    if (front_is_scalar(key)) {
        value = PyDict_GetItemWithError(self->scalars, key);
    } else if (is_plain(key, LEVELS)) {
        PyObject *pair = PyDict_GetItemWithError(self->others, key);
        value = pair && same_types(PyTuple_GetItem(pair, 0), key) ? PyTuple_GetItem(pair, 1) : NULL;
    } else {
        return NULL;
    }
    if (!value) PyErr_Clear();
    if (!value || !is_now(self->core.word, self->entered)) return NULL;
    Py_INCREF(value);
    /* Into the row, where it outlives the process. Under the GIL, so that nobody counts in between: see stats.c. */
    uint64_t *at = __atomic_load_n(self->core.hot, __ATOMIC_RELAXED);
    *hits = __atomic_load_n(at, __ATOMIC_RELAXED) + 1;
    __atomic_store_n(at, *hits, __ATOMIC_RELAXED);
    return value;
}

/* As in hot.py: what is in more levels of tuples is not looked at. */
static bool is_immutable(PyObject *value, int depth) {
    if (front_is_scalar(value) || PyFloat_CheckExact(value) || PyBool_Check(value) || value == Py_None) return true;
    if (!PyTuple_CheckExact(value) || depth == 0) return false;
    Py_ssize_t items = PyTuple_Size(value);
    for (Py_ssize_t i = 0; i < items; i++)
        if (!is_immutable(PyTuple_GetItem(value, i), depth - 1)) return false;
    return true;
}

static bool is_kept(const Front *self, PyObject *key, PyObject *value, Py_ssize_t size) {
    return self->keeps && size <= self->size_max && (self->keeps == 2 || is_immutable(value, LEVELS)) && is_plain(key, LEVELS);
}

/* The value that `payload`, whose reference is taken, stands for. */
static PyObject *decode(const Front *self, int format, PyObject *payload) {
    PyObject *value = NULL, *error = shared.decode_error;
    bool pickles = self->loads != Py_None; /* then two formats are done here, as the decoder would, without its frame */
    if (pickles && format == FORMAT_PICKLE) {
        value = PyObject_CallFunctionObjArgs(self->loads, payload, NULL);
        error = PyExc_Exception;
    } else if (pickles && format == FORMAT_STR) {
        char *text;
        Py_ssize_t n;
        if (PyBytes_AsStringAndSize(payload, &text, &n) == 0) value = PyUnicode_DecodeUTF8(text, n, "surrogatepass");
        error = PyExc_Exception;
    } else {
        PyObject *number = PyLong_FromLong(format);
        if (number) value = PyObject_CallFunctionObjArgs(self->decode, number, payload, NULL);
        Py_XDECREF(number);
    }
    Py_DECREF(payload);
    /* What cannot be decoded is no hit, and `_cached` deals with it. Anything else is a signal handler's, say. */
    if (!value && PyErr_ExceptionMatches(error)) PyErr_Clear();
    return value;
}

/* Returns `value`, whose reference is taken. */
static PyObject *keep(Front *self, PyObject *tables, PyObject *key, PyObject *value, Py_ssize_t size) {
    PyObject *bytes = PyLong_FromSsize_t(size), *kept = NULL;
    if (bytes) kept = PyObject_CallMethodObjArgs((PyObject *)self, shared.name_keep, tables, key, value, bytes, NULL);
    if (!kept) Py_CLEAR(value);
    Py_XDECREF(kept);
    Py_XDECREF(bytes);
    return value;
}

/* The payload of an entry that is large, or is to be handed out without a copy: bytes, or a View. */
static PyObject *pinned(const Core *core, const Encoded *key, uint64_t generation, int *format) {
    csm_view *view;
    if (core->acquire(core->handle, key->at, key->n, &view) != CSM_OK) return NULL;
    *format = (int)view->format;
    if (view->generation != generation) {
        core->release(view);
        return NULL;
    }
    if (is_over_memory(*format)) return front_view(core, view);
    PyObject *payload = PyBytes_FromStringAndSize((const char *)view->data, (Py_ssize_t)view->bytes);
    core->release(view);
    return payload;
}

static PyObject *find_stored(Front *self, PyObject *key) {
    Encoded data;
    if (!front_encode(&data, key)) return NULL;
    /* What this call believes in from here on. By the time a decoder returns, another thread (or the decoder itself) may have
     * entered the next generation, and then the value is neither to be returned nor to be kept there. */
    const uint64_t *word = self->core.word, generation = self->entered;
    int64_t found = self->core.find(self->core.handle, data.at, data.n);
    if (found == 0) return NULL;
    Py_ssize_t size = (Py_ssize_t)(found >> 5 & 0x3fffff);
    int format = (int)(found & 31);
    bool copied = found > 0 && (!is_over_memory(format) || size < PIN_FROM);
    PyObject *value, *tables = self->tables;
    if (copied)
        value = PyBytes_FromStringAndSize((const char *)self->core.base + (found >> 27 << 4), size);
    else
        value = pinned(&self->core, &data, generation, &format);
    if (value && !is_now(word, generation)) Py_CLEAR(value); /* perhaps torn: it never happened */
    if (!value) return NULL;
    Py_INCREF(tables);
    if (format != FORMAT_BYTES) value = decode(self, format, value);
    if (value && copied && is_kept(self, key, value, size)) value = keep(self, tables, key, value, size);
    Py_DECREF(tables);
    /* Last, for all of these may run Python code: a decoder, other threads, the destructor of a value that had to give way. A reset
     * that returned there must not see this call return what was before it. */
    if (value && !is_now(word, generation)) Py_CLEAR(value);
    return value;
}

/* Once in so many hits: see csm_hot. False: it is no hit any more, because Python code has run and a reset may have returned there; or
 * an exception is set. */
__attribute__((noinline)) static bool look(Front *self) {
    const uint64_t *word = self->core.word, generation = self->entered; /* as find_hot has compared them just now */
    self->core.settle(self->core.handle, self->core.handle);
    PyObject *looked = PyObject_CallMethodObjArgs((PyObject *)self, shared.name_look, NULL);
    Py_XDECREF(looked);
    return looked && is_now(word, generation);
}

PyObject *front_hit(Front *self, PyObject *key) {
    if (!self->entered) return NULL;
    uint64_t hits;
    PyObject *value = find_hot(self, key, &hits);
    if (!value) return find_stored(self, key);
    if (hits % CSM_HOT_LOOK == 0 && !look(self)) Py_CLEAR(value);
    return value;
}

PyObject *front_get(Front *self, PyObject *key, PyObject *fn, const Limits *limits) {
    PyObject *value = front_hit(self, key);
    if (value || PyErr_Occurred()) return value;
    if (!limits) return PyObject_CallMethodObjArgs((PyObject *)self, shared.name_cached, key, fn, NULL);
    return PyObject_CallMethodObjArgs((PyObject *)self, shared.name_cached, key, fn, limits->timeout, limits->on_timeout, NULL);
}

/* ---- limits: of a call that has any, on its way of a hit, too, or a wrong one would show only when the cache is cold */

static bool is_seconds(PyObject *timeout) {
    if (timeout == Py_None) return true;
    if (PyFloat_CheckExact(timeout)) return PyFloat_AsDouble(timeout) >= 0; /* not NaN */
    int overflow;
    return PyLong_CheckExact(timeout) && PyLong_AsLongAndOverflow(timeout, &overflow) >= 0 && !overflow;
}

static bool is_choice(PyObject *on_timeout) {
    if (on_timeout == Py_None) return true;
    return PyUnicode_CheckExact(on_timeout) && (PyUnicode_CompareWithASCIIString(on_timeout, "compute") == 0 ||
                                                PyUnicode_CompareWithASCIIString(on_timeout, "raise") == 0);
}

bool front_limits(Front *self, const char *function, PyObject *const *values, PyObject *names, Limits *limits) {
    *limits = (Limits){Py_None, Py_None};
    Py_ssize_t n = PyTuple_Size(names);
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *name = PyTuple_GetItem(names, i);
        if (PyUnicode_CompareWithASCIIString(name, "timeout") == 0) {
            limits->timeout = values[i];
        } else if (PyUnicode_CompareWithASCIIString(name, "on_timeout") == 0) {
            limits->on_timeout = values[i];
        } else {
            PyErr_Format(PyExc_TypeError, "%s() has no keyword argument %R; it has timeout and on_timeout", function, name);
            return false;
        }
    }
    if (is_seconds(limits->timeout) && is_choice(limits->on_timeout)) return true;
    PyObject *limit =
        PyObject_CallMethodObjArgs((PyObject *)self, shared.name_limit, limits->timeout, limits->on_timeout, NULL);
    Py_XDECREF(limit);
    return limit != NULL;
}

/* ---- what Python sees */

PyDoc_STRVAR(front_cached_doc, "cached($self, key, fn, /, *, timeout=None, on_timeout=None)\n--\n\n"
"Return the value of `key`, calling `fn` to compute it if no process has.\n"
"\n"
"Whoever else asks for the key meanwhile, in whatever thread or process, waits for that one call. If `fn` raises,\n"
"its caller and all who wait get the exception, and nothing is stored. If it returns `NoCache(v)` they get `v`,\n"
"and nothing is stored. What was computed before a reset is not returned after it: `fn` is called again.\n"
"\n"
"Args:\n"
"    key: str, bytes, int, float, bool, None, or a tuple of them.\n"
"    fn: called without arguments, in this thread.\n"
"    timeout: seconds that this call waits for another's computation of the key, from 0; how long `fn` itself takes is not\n"
"        limited. None: as the cache's setting `timeout` says, which by default is without limit, as is float('inf').\n"
"    on_timeout: what then; \"raise\" WaitTimeout, or \"compute\" with `fn`, without storing the value (the other one's will be).\n"
"        None: as the cache's setting `on_timeout` says, by default \"raise\".\n"
"\n"
"Raises:\n"
"    WaitTimeout: see `on_timeout`.\n"
"    ConfigError: `timeout` or `on_timeout` is something else.\n"
"    InvalidKeyError: the key is of another type, or too long.\n"
"    CycleError: the value is being computed by a computation that waits for the caller's.\n"
"    ComputeError: another process's `fn` raised an exception that cannot be carried over; this has its text.\n"
"    Exception: whatever `fn` raised, here or where it ran.\n");

/* By itself, so that the room for limits costs nothing to a call that has none. */
__attribute__((noinline)) static PyObject *get_within(Front *self, PyObject *const *args, PyObject *names) {
    Limits limits;
    if (!front_limits(self, "Cache.cached", args + 2, names, &limits)) return NULL;
    return front_get(self, args[0], args[1], &limits);
}

static PyObject *front_cached(PyObject *self, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    if (n == 2) return names ? get_within((Front *)self, args, names) : front_get((Front *)self, args[0], args[1], NULL);
    PyErr_Format(PyExc_TypeError, "Cache.cached() takes a key and a function, but got %zd arguments", n);
    return NULL;
}

PyDoc_STRVAR(hit_doc, "_hit($self, key, default, /)\n--\n\nReturn the value of `key` if that is a hit, else `default`.");

static PyObject *front_hit_or(PyObject *self, PyObject *args) {
    PyObject *key, *otherwise;
    if (!PyArg_ParseTuple(args, "OO", &key, &otherwise)) return NULL;
    PyObject *value = front_hit((Front *)self, key);
    if (value || PyErr_Occurred()) return value;
    Py_INCREF(otherwise);
    return otherwise;
}

PyDoc_STRVAR(attach_doc, "_attach($self, addresses, owner, /)\n--\n\n"
"Go on with a segment, which is not entered yet. `addresses` are those of csm_find, csm_view_acquire, csm_view_release, of the\n"
"handle, the mapping, and the generation; what csm_hot returns, and csm_hot_settle's. `owner` keeps the handle.");

static PyObject *front_attach(PyObject *object, PyObject *args) {
    Front *self = (Front *)object;
    Core core;
    if (!front_parse_core(args, "(KKKKKKKK)O", &core, NULL)) return NULL;
    PyObject *old = self->core.owner;
    Py_INCREF(core.owner);
    self->entered = 0;
    if (old) core.settle(self->core.handle, core.handle); /* what the former handle could count nowhere else */
    self->core = core;
    Py_XDECREF(old);
    return front_none();
}

PyDoc_STRVAR(enter_doc, "_enter($self, generation, tables, scalars, others, /)\n--\n\n"
"Hits are of this generation from now on. `tables` is what `_keep` gets; its hot objects are in `scalars` by key, if that\n"
"is a str, bytes or int, else in `others` by key, as a pair of the key and the value.");

static PyObject *front_enter(PyObject *object, PyObject *args) {
    unsigned long long generation;
    PyObject *tables, *scalars, *others;
    Front *self = (Front *)object;
    if (!PyArg_ParseTuple(args, "KOO!O!", &generation, &tables, &PyDict_Type, &scalars, &PyDict_Type, &others)) return NULL;
    PyObject *old[] = {self->tables, self->scalars, self->others};
    Py_INCREF(tables);
    Py_INCREF(scalars);
    Py_INCREF(others);
    self->tables = tables;
    self->scalars = scalars;
    self->others = others;
    self->entered = self->core.word ? generation : 0;
    for (int i = 0; i < 3; i++) Py_XDECREF(old[i]); /* last: what ends with it may run code */
    return front_none();
}

PyDoc_STRVAR(settle_doc, "_settle($self, /)\n--\n\nAdd what was counted without a row to the row that this process has by now.");

static PyObject *front_settle(PyObject *object, PyObject *unused) {
    (void)unused;
    Core *core = &((Front *)object)->core;
    if (core->owner) core->settle(core->handle, core->handle);
    return front_none();
}

static PyMethodDef front_methods[] = {
    {"cached", (PyCFunction)(void (*)(void))front_cached, METH_FASTCALL | METH_KEYWORDS, front_cached_doc},
    {"_hit", front_hit_or, METH_VARARGS, hit_doc},
    {"_attach", front_attach, METH_VARARGS, attach_doc},
    {"_enter", front_enter, METH_VARARGS, enter_doc},
    {"_settle", front_settle, METH_NOARGS, settle_doc},
    {NULL, NULL, 0, NULL},
};

static int front_init(PyObject *object, PyObject *args, PyObject *kwargs) {
    Front *self = (Front *)object;
    PyObject *decode, *loads;
    int keeps;
    Py_ssize_t size_max;
    if (kwargs || !PyArg_ParseTuple(args, "OOin", &decode, &loads, &keeps, &size_max)) return -1;
    PyObject *old[] = {self->decode, self->loads};
    Py_INCREF(decode);
    Py_INCREF(loads);
    self->decode = decode;
    self->loads = loads;
    Py_XDECREF(old[0]);
    Py_XDECREF(old[1]);
    self->keeps = keeps;
    self->size_max = size_max;
    if (!self->scalars) self->scalars = PyDict_New();
    if (!self->others) self->others = PyDict_New();
    return self->scalars && self->others ? 0 : -1; /* not entered, so they stay empty */
}

static int front_traverse(PyObject *object, visitproc visit, void *arg) {
    Front *self = (Front *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->core.owner);
    Py_VISIT(self->tables);
    Py_VISIT(self->scalars);
    Py_VISIT(self->others);
    Py_VISIT(self->decode);
    Py_VISIT(self->loads);
    return 0;
}

static int front_clear(PyObject *object) {
    Front *self = (Front *)object;
    self->entered = 0;
    Py_CLEAR(self->core.owner);
    Py_CLEAR(self->tables);
    Py_CLEAR(self->scalars);
    Py_CLEAR(self->others);
    Py_CLEAR(self->decode);
    Py_CLEAR(self->loads);
    return 0;
}

static void front_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    front_clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyType_Slot front_slots[] = {
    {Py_tp_doc, "The way of a hit. Front(decode, loads, keeps, size_max): the decoder of entries, pickle.loads if that is what it\n"
                "does with pickles, else None, which values become hot objects (0 none, 1 immutable ones, 2 all), and of at most\n"
                "how many bytes."},
    {Py_tp_methods, front_methods},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, front_init},
    {Py_tp_traverse, front_traverse},
    {Py_tp_clear, front_clear},
    {Py_tp_dealloc, front_dealloc},
    {0, NULL},
};

PyType_Spec front_spec = {
    .name = "coopshm._front.Front",
    .basicsize = sizeof(Front),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = front_slots,
};

