/* front.c: coopshm._front, the way of a hit.
 *
 * A hit must cost about what functools.lru_cache costs, and a Python function of a dozen lines costs four times that. So the
 * part that every call goes through is here, over the stable ABI of CPython 3.10 (setup.py asks for it): find the value among the hot objects of this process;
 * else find the entry in shared memory, copy it, decode it; else call the method `_cached`, where everything else is.
 *
 * Exact with respect to resets, in three places that look alike: what was found counts only if the generation, loaded
 * afterwards, is the one that this process has `entered`, that is, whose hooks have run here and whose hot objects the tables
 * hold. Nothing is decoded that was not checked, and a decoded value is checked again.
 *
 * Runs under the GIL throughout, which makes a look at the tables and the generation they are of one step for the threads of the
 * process. Python code runs only in `decode`, `_keep`, `_drain` and `_cached`, after which nothing is believed that was read
 * before. The core's handle and its mapping are never freed.
 *
 * It knows of the core one function and three addresses, handed over by `attach`: coopshm._core is another shared object. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Formats of values.py that matter here. */
enum { FORMAT_BYTES = 1, FORMAT_BUFFERS = 4 };
/* Longer encodings than this are left to Python. */
enum { KEY_ROOM = 512, KEY_DEPTH = 4 };
/* Hits that a process counts by itself before `_drain` adds them to its row, where others see them. */
enum { DRAIN_AT = 4096 };
/* Values with buffers come back over shared memory from this size on, and that is Python's part; below, over a copy. A pin,
 * with its view object, costs about as much as copying this much. */
enum { PIN_FROM = 16 * 1024 };

typedef int64_t find_function(void *handle, const char *key, size_t key_bytes);

typedef struct {
    PyObject_HEAD
    find_function *find;
    void *handle;
    const unsigned char *base;
    const uint64_t *word;  /* the generation now */
    uint64_t entered;      /* the one whose hooks have run; 0: none */
    PyObject *tables;      /* hot objects: hot.py's object, with these two of its: */
    PyObject *scalars;     /*   str, bytes or int -> value */
    PyObject *others;      /*   other key -> (that key, value): 1, True and 1.0 are one key to a dict, but not here */
    PyObject *decode;      /* (format, payload) -> value */
    int keeps;             /* hot objects: 0 none, 1 of immutable values, 2 of all */
    Py_ssize_t size_max;   /* of one, encoded */
    uint64_t hot_hits;
} Front;

/* One interpreter: the core has no state for another one either. */
static PyObject *front_type, *name_cached, *name_drain, *name_keep, *caches, *open_cache, *decode_error;

/* ---- generations */

static bool is_now(const uint64_t *word, uint64_t generation) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* what was copied before was loaded before */
    return __atomic_load_n(word, __ATOMIC_ACQUIRE) == generation;
}

/* ---- keys */

typedef struct {
    size_t n;
    char at[KEY_ROOM];
} Encoded;

static bool put(Encoded *to, const char *data, size_t n) {
    if (n > KEY_ROOM - to->n) return false;
    memcpy(to->at + to->n, data, n);
    to->n += n;
    return true;
}

static bool put_number(Encoded *to, int64_t number) {
    char digits[18];
    size_t at = sizeof digits;
    uint64_t rest = number < 0 ? -(uint64_t)number : (uint64_t)number;
    do digits[--at] = "0123456789abcdef"[rest & 15];
    while (rest >>= 4);
    if (number < 0) digits[--at] = '-';
    digits[--at] = 'i';
    return put(to, digits + at, sizeof digits - at);
}

/* Appends the encoding of `key`, which keys.py defines. False: it is not one of those done here; no exception is set. */
static bool encode(Encoded *to, PyObject *key, int depth) {
    if (PyUnicode_CheckExact(key)) {
        Py_ssize_t n;
        const char *text = PyUnicode_AsUTF8AndSize(key, &n);
        if (!text) PyErr_Clear(); /* lone surrogates */
        return text && put(to, "s", 1) && put(to, text, (size_t)n);
    }
    if (PyLong_CheckExact(key)) {
        int overflow;
        int64_t number = PyLong_AsLongLongAndOverflow(key, &overflow);
        return !overflow && put_number(to, number);
    }
    if (PyBytes_CheckExact(key)) {
        char *data;
        Py_ssize_t n;
        PyBytes_AsStringAndSize(key, &data, &n);
        return put(to, "b", 1) && put(to, data, (size_t)n);
    }
    if (PyTuple_CheckExact(key)) {
        Py_ssize_t items = PyTuple_Size(key);
        if (depth == KEY_DEPTH || !put(to, "(", 1)) return false;
        for (Py_ssize_t i = 0; i < items; i++) {
            size_t start = to->n;
            if (!put(to, "\0\0", 2) || !encode(to, PyTuple_GetItem(key, i), depth + 1)) return false;
            size_t n = to->n - start - 2;
            to->at[start] = (char)(n >> 8);
            to->at[start + 1] = (char)n;
        }
        return true;
    }
    if (key == Py_None) return put(to, "n", 1);
    if (key == Py_True) return put(to, "t", 1);
    if (key == Py_False) return put(to, "f", 1);
    return false;
}

static bool is_scalar(PyObject *key) {
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key) || PyBytes_CheckExact(key);
}

/* Keys that can be compared without running anybody's code. Not floats: 0.0 and -0.0 are equal, and two keys. */
static bool is_plain(PyObject *key) {
    if (is_scalar(key) || key == Py_None || key == Py_True || key == Py_False) return true;
    if (!PyTuple_CheckExact(key)) return false;
    Py_ssize_t items = PyTuple_Size(key);
    for (Py_ssize_t i = 0; i < items; i++)
        if (!is_plain(PyTuple_GetItem(key, i))) return false;
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

static PyObject *find_hot(Front *self, PyObject *key) {
    PyObject *value;
    if (is_scalar(key)) {
        value = PyDict_GetItemWithError(self->scalars, key);
    } else if (is_plain(key)) {
        PyObject *pair = PyDict_GetItemWithError(self->others, key);
        value = pair && same_types(PyTuple_GetItem(pair, 0), key) ? PyTuple_GetItem(pair, 1) : NULL;
    } else {
        return NULL;
    }
    if (!value) PyErr_Clear(); /* python -bb, where "k" and b"k" are not to be compared */
    if (!value || !is_now(self->word, self->entered)) return NULL;
    Py_INCREF(value);
    self->hot_hits++;
    return value;
}

static bool is_immutable(PyObject *value) {
    if (is_scalar(value) || PyFloat_CheckExact(value) || PyBool_Check(value) || value == Py_None) return true;
    if (!PyTuple_CheckExact(value)) return false;
    Py_ssize_t items = PyTuple_Size(value);
    for (Py_ssize_t i = 0; i < items; i++)
        if (!is_immutable(PyTuple_GetItem(value, i))) return false;
    return true;
}

static bool is_kept(const Front *self, PyObject *key, PyObject *value, Py_ssize_t size) {
    return self->keeps && size <= self->size_max && (self->keeps == 2 || is_immutable(value)) && is_plain(key);
}

/* The value that `payload`, whose reference is taken, stands for. */
static PyObject *decode(const Front *self, int format, PyObject *payload) {
    PyObject *number = PyLong_FromLong(format);
    PyObject *value = number ? PyObject_CallFunctionObjArgs(self->decode, number, payload, NULL) : NULL;
    Py_XDECREF(number);
    Py_DECREF(payload);
    /* What cannot be decoded is no hit, and `_cached` deals with it. Anything else is a signal handler's, say. */
    if (!value && PyErr_ExceptionMatches(decode_error)) PyErr_Clear();
    return value;
}

/* Returns `value`, whose reference is taken. */
static PyObject *keep(Front *self, PyObject *tables, PyObject *key, PyObject *value, Py_ssize_t size) {
    PyObject *bytes = PyLong_FromSsize_t(size), *kept = NULL;
    if (bytes) kept = PyObject_CallMethodObjArgs((PyObject *)self, name_keep, tables, key, value, bytes, NULL);
    if (!kept) Py_CLEAR(value);
    Py_XDECREF(kept);
    Py_XDECREF(bytes);
    return value;
}

static PyObject *find_stored(Front *self, PyObject *key) {
    Encoded data;
    data.n = 0;
    if (!self->entered || !encode(&data, key, 0)) return NULL;
    /* What this call believes in from here on. By the time a decoder returns, another thread (or the decoder itself) may have
     * entered the next generation, and then the value is neither to be returned nor to be kept there. */
    const uint64_t *word = self->word, generation = self->entered;
    int64_t found = self->find(self->handle, data.at, data.n);
    if (found <= 0) return NULL;
    const char *at = (const char *)self->base + (found >> 27 << 4);
    Py_ssize_t size = (Py_ssize_t)(found >> 5 & 0x3fffff);
    int format = (int)(found & 31);
    if (format == FORMAT_BUFFERS && size >= PIN_FROM) return NULL;
    PyObject *tables = self->tables, *value = PyBytes_FromStringAndSize(at, size);
    Py_INCREF(tables);
    if (value && !is_now(word, generation)) Py_CLEAR(value); /* perhaps torn: it never happened */
    if (value && format != FORMAT_BYTES) {
        value = decode(self, format, value);
        if (value && !is_now(word, generation)) Py_CLEAR(value);
    }
    if (value && is_kept(self, key, value, size)) value = keep(self, tables, key, value, size);
    Py_DECREF(tables);
    return value;
}

static PyObject *get(Front *self, PyObject *key, PyObject *fn) {
    PyObject *value = find_hot(self, key);
    if (value && self->hot_hits % DRAIN_AT == 0) {
        PyObject *drained = PyObject_CallMethodObjArgs((PyObject *)self, name_drain, NULL);
        if (!drained) Py_CLEAR(value);
        Py_XDECREF(drained);
    } else if (!value && !PyErr_Occurred()) {
        value = find_stored(self, key);
    }
    if (value || PyErr_Occurred()) return value;
    return PyObject_CallMethodObjArgs((PyObject *)self, name_cached, key, fn, NULL);
}

/* ---- what Python sees */

PyDoc_STRVAR(front_cached_doc, "cached($self, key, fn, /)\n--\n\n"
"Return the value of `key`, calling `fn` to compute it if no process has.\n"
"\n"
"Whoever else asks for the key meanwhile, in whatever thread or process, waits for that one call. If `fn` raises,\n"
"its caller and all who wait get the exception, and nothing is stored. If it returns `NoCache(v)` they get `v`,\n"
"and nothing is stored. What was computed before a reset is not returned after it: `fn` is called again.\n"
"\n"
"Args:\n"
"    key: str, bytes, int, float, bool, None, or a tuple of them.\n"
"    fn: called without arguments, in this thread.\n"
"\n"
"Raises:\n"
"    InvalidKeyError: the key is of another type, or too long.\n"
"    CycleError: the value is being computed by a computation that waits for the caller's.\n"
"    ComputeError: another process's `fn` raised an exception that cannot be carried over; this has its text.\n"
"    Exception: whatever `fn` raised, here or where it ran.\n");

static PyObject *front_cached(PyObject *self, PyObject *const *args, Py_ssize_t n) {
    if (n == 2) return get((Front *)self, args[0], args[1]);
    PyErr_Format(PyExc_TypeError, "Cache.cached() takes a key and a function, but got %zd arguments", n);
    return NULL;
}

PyDoc_STRVAR(module_cached_doc, "cached(name, key, fn, /)\n--\n\n"
"Return the value of `key` in cache `name`, calling `fn` to compute it if no process has.\n"
"\n"
"See `Cache.cached` for arguments, result and errors, and `open` for the errors of the first use.\n");

static PyObject *module_cached(PyObject *module, PyObject *const *args, Py_ssize_t n) {
    (void)module;
    if (n != 3) {
        PyErr_Format(PyExc_TypeError, "coopshm.cached() takes a name, a key and a function, but got %zd arguments", n);
        return NULL;
    }
    PyObject *cache = PyDict_GetItemWithError(caches, args[0]);
    Py_XINCREF(cache);
    if (!cache && !PyErr_Occurred()) cache = PyObject_CallFunctionObjArgs(open_cache, args[0], NULL);
    if (!cache) return NULL;
    PyObject *value = NULL;
    if (PyObject_TypeCheck(cache, (PyTypeObject *)front_type)) value = get((Front *)cache, args[1], args[2]);
    else PyErr_SetString(PyExc_TypeError, "coopshm.open() returned something that is no cache");
    Py_DECREF(cache);
    return value;
}

PyDoc_STRVAR(attach_doc, "_attach($self, find, handle, base, word, /)\n--\n\n"
"Go on with a segment: addresses of csm_find, of its handle, of its mapping and of its generation.\n"
"It is not entered yet.");

static PyObject *front_attach(PyObject *object, PyObject *args) {
    unsigned long long find, handle, base, word;
    Front *self = (Front *)object;
    if (!PyArg_ParseTuple(args, "KKKK", &find, &handle, &base, &word)) return NULL;
    self->entered = 0;
    self->find = (find_function *)(uintptr_t)find;
    self->handle = (void *)(uintptr_t)handle;
    self->base = (const unsigned char *)(uintptr_t)base;
    self->word = (const uint64_t *)(uintptr_t)word;
    Py_RETURN_NONE;
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
    self->entered = self->word ? generation : 0;
    for (int i = 0; i < 3; i++) Py_XDECREF(old[i]); /* last: what ends with it may run code */
    Py_RETURN_NONE;
}

PyDoc_STRVAR(take_doc, "_take_hot_hits($self, /)\n--\n\nReturn how many hits of hot objects there were since the last time.");

static PyObject *front_take_hot_hits(PyObject *self, PyObject *unused) {
    (void)unused;
    uint64_t hits = ((Front *)self)->hot_hits;
    ((Front *)self)->hot_hits = 0;
    return PyLong_FromUnsignedLongLong(hits);
}

static PyMethodDef front_methods[] = {
    {"cached", (PyCFunction)(void (*)(void))front_cached, METH_FASTCALL, front_cached_doc},
    {"_attach", front_attach, METH_VARARGS, attach_doc},
    {"_enter", front_enter, METH_VARARGS, enter_doc},
    {"_take_hot_hits", front_take_hot_hits, METH_NOARGS, take_doc},
    {NULL, NULL, 0, NULL},
};

static int front_init(PyObject *object, PyObject *args, PyObject *kwargs) {
    Front *self = (Front *)object;
    PyObject *decode;
    int keeps;
    Py_ssize_t size_max;
    if (kwargs || !PyArg_ParseTuple(args, "Oin", &decode, &keeps, &size_max)) return -1;
    PyObject *old = self->decode;
    Py_INCREF(decode);
    self->decode = decode;
    Py_XDECREF(old);
    self->keeps = keeps;
    self->size_max = size_max;
    if (!self->scalars) self->scalars = PyDict_New();
    if (!self->others) self->others = PyDict_New();
    return self->scalars && self->others ? 0 : -1; /* not entered, so they stay empty */
}

static int front_traverse(PyObject *object, visitproc visit, void *arg) {
    Front *self = (Front *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->tables);
    Py_VISIT(self->scalars);
    Py_VISIT(self->others);
    Py_VISIT(self->decode);
    return 0;
}

static int front_clear(PyObject *object) {
    Front *self = (Front *)object;
    self->entered = 0;
    Py_CLEAR(self->tables);
    Py_CLEAR(self->scalars);
    Py_CLEAR(self->others);
    Py_CLEAR(self->decode);
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
    {Py_tp_doc, "The way of a hit. Front(decode, keeps, size_max): the decoder of entries, which values become hot objects\n"
                "(0 none, 1 immutable ones, 2 all), and of at most how many bytes."},
    {Py_tp_methods, front_methods},
    {Py_tp_new, PyType_GenericNew},
    {Py_tp_init, front_init},
    {Py_tp_traverse, front_traverse},
    {Py_tp_clear, front_clear},
    {Py_tp_dealloc, front_dealloc},
    {0, NULL},
};

static PyType_Spec front_spec = {
    .name = "coopshm._front.Front",
    .basicsize = sizeof(Front),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = front_slots,
};

PyDoc_STRVAR(bind_doc, "bind(caches, open, decode_error, /)\n--\n\n"
"Where `cached` finds caches by name, what it calls for others, and what a decoder raises.");

static PyObject *module_bind(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *new_caches, *new_open, *new_error;
    if (!PyArg_ParseTuple(args, "O!OO", &PyDict_Type, &new_caches, &new_open, &new_error)) return NULL;
    Py_INCREF(new_caches);
    Py_INCREF(new_open);
    Py_INCREF(new_error);
    caches = new_caches; /* once per process: what was there before is not missed */
    open_cache = new_open;
    decode_error = new_error;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(encode_doc, "encode_key(key, /)\n--\n\n"
"Return the encoding of `key` as keys.py defines it, or None for a key that is left to that.");

static PyObject *module_encode(PyObject *module, PyObject *key) {
    (void)module;
    Encoded data;
    data.n = 0;
    if (encode(&data, key, 0)) return PyBytes_FromStringAndSize(data.at, (Py_ssize_t)data.n);
    Py_RETURN_NONE;
}

static PyMethodDef module_methods[] = {
    {"cached", (PyCFunction)(void (*)(void))module_cached, METH_FASTCALL, module_cached_doc},
    {"bind", module_bind, METH_VARARGS, bind_doc},
    {"encode_key", module_encode, METH_O, encode_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "coopshm._front", .m_doc = "The way of a hit.", .m_size = -1, .m_methods = module_methods,
};

PyMODINIT_FUNC PyInit__front(void) {
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    name_cached = PyUnicode_InternFromString("_cached");
    name_drain = PyUnicode_InternFromString("_drain");
    name_keep = PyUnicode_InternFromString("_keep");
    caches = PyDict_New();
    front_type = PyType_FromSpec(&front_spec);
    if (!name_cached || !name_drain || !name_keep || !caches || !front_type) goto failed;
    Py_INCREF(front_type);
    if (PyModule_AddObject(module, "Front", front_type) == 0) return module;
    Py_DECREF(front_type);
failed:
    Py_DECREF(module);
    return NULL;
}
