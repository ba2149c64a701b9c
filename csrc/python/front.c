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
 * process. Python code runs only in `decode`, `_keep`, `_drain` and `_cached`, after which nothing is believed that was read
 * before. The core's handle and its mapping are never freed.
 *
 * It knows of the core what `attach` hands over, since coopshm._core is another shared object. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "api.h"

/* Formats of values.py that matter here. */
enum { FORMAT_BYTES = 1, FORMAT_BUFFERS = 4, FORMAT_ARRAY = 8 };
/* Longer encodings than this are left to Python. */
enum { KEY_ROOM = 512, KEY_DEPTH = 4 };
/* Hits that a process counts by itself before `_drain` adds them to its row, where others see them. */
enum { DRAIN_AT = 4096 };
/* Values that refer to their payload come back over shared memory from this size on, and that is Python's part; below, over a copy. A pin,
 * with its view object, costs about as much as copying this much. */
enum { PIN_FROM = 16 * 1024 };

/* A segment, as the core knows it. */
typedef struct {
    __typeof__(csm_find) *find;
    __typeof__(csm_view_acquire) *acquire;
    __typeof__(csm_view_release) *release;
    csm *handle;
    const unsigned char *base;
    const uint64_t *word; /* the generation now */
    PyObject *owner;      /* keeps the handle from being left */
} Core;

static bool is_over_memory(int format) { return format == FORMAT_BUFFERS || format == FORMAT_ARRAY; }

typedef struct {
    PyObject_HEAD
    Core core;
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
static PyObject *front_type, *view_type, *name_cached, *name_drain, *name_keep, *caches, *open_cache, *decode_error;

/* ---- generations */

static bool is_now(const uint64_t *word, uint64_t generation) {
    __atomic_thread_fence(__ATOMIC_ACQUIRE); /* what was copied before was loaded before */
    return __atomic_load_n(word, __ATOMIC_ACQUIRE) == generation;
}

/* ---- views: values over shared memory */

/* Pinned bytes, as long as it lives; and whatever refers to its buffer (a slice, an array) keeps it alive. */
typedef struct {
    PyObject_HEAD
    csm_view *view;
    __typeof__(csm_view_release) *release;
    PyObject *owner;
} View;

/* Takes over `view`. No thread of Python's runs between the pin and this, so none can fork in between. */
static PyObject *view_of(const Core *core, csm_view *view) {
    View *self = PyObject_New(View, (PyTypeObject *)view_type);
    if (!self) {
        core->release(view);
        return NULL;
    }
    self->view = view;
    self->release = core->release;
    self->owner = core->owner;
    Py_INCREF(self->owner);
    return (PyObject *)self;
}

static int view_getbuffer(PyObject *object, Py_buffer *buffer, int flags) {
    csm_view *view = ((View *)object)->view;
    return PyBuffer_FillInfo(buffer, object, (void *)view->data, (Py_ssize_t)view->bytes, 1, flags);
}

static void view_dealloc(PyObject *object) {
    View *self = (View *)object;
    PyTypeObject *type = Py_TYPE(object);
    self->release(self->view);
    Py_DECREF(self->owner);
    PyObject_Free(object);
    Py_DECREF(type);
}

static PyType_Slot view_slots[] = {
    {Py_tp_doc, "A value over shared memory, which does not change while this lives."},
    {Py_bf_getbuffer, view_getbuffer},
    {Py_tp_dealloc, view_dealloc},
    {0, NULL},
};

static PyType_Spec view_spec = {
    .name = "coopshm._front.View",
    .basicsize = sizeof(View),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};

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
    if (!value || !is_now(self->core.word, self->entered)) return NULL;
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

/* The payload of an entry that is large, or is to be handed out without a copy: bytes, or a View. */
static PyObject *pinned(const Core *core, const Encoded *key, uint64_t generation, int *format) {
    csm_view *view;
    if (core->acquire(core->handle, key->at, key->n, &view) != CSM_OK) return NULL;
    *format = (int)view->format;
    if (view->generation != generation) {
        core->release(view);
        return NULL;
    }
    if (is_over_memory(*format)) return view_of(core, view);
    PyObject *payload = PyBytes_FromStringAndSize((const char *)view->data, (Py_ssize_t)view->bytes);
    core->release(view);
    return payload;
}

static PyObject *find_stored(Front *self, PyObject *key) {
    Encoded data;
    data.n = 0;
    if (!self->entered || !encode(&data, key, 0)) return NULL;
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
    Py_INCREF(tables);
    if (value && !is_now(word, generation)) Py_CLEAR(value); /* perhaps torn: it never happened */
    if (value && format != FORMAT_BYTES) {
        value = decode(self, format, value);
        if (value && !is_now(word, generation)) Py_CLEAR(value);
    }
    if (value && copied && is_kept(self, key, value, size)) value = keep(self, tables, key, value, size);
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

PyDoc_STRVAR(attach_doc, "_attach($self, addresses, owner, /)\n--\n\n"
"Go on with a segment, which is not entered yet. `addresses` are those of csm_find, csm_view_acquire, csm_view_release, of the\n"
"handle, the mapping, and the generation; `owner` keeps the handle.");

static bool parse_core(PyObject *args, const char *format, Core *core, const char **key, Py_ssize_t *n) {
    unsigned long long find, acquire, release, handle, base, word;
    if (!PyArg_ParseTuple(args, format, &find, &acquire, &release, &handle, &base, &word, &core->owner, key, n)) return false;
    core->find = (__typeof__(csm_find) *)(uintptr_t)find;
    core->acquire = (__typeof__(csm_view_acquire) *)(uintptr_t)acquire;
    core->release = (__typeof__(csm_view_release) *)(uintptr_t)release;
    core->handle = (csm *)(uintptr_t)handle;
    core->base = (const unsigned char *)(uintptr_t)base;
    core->word = (const uint64_t *)(uintptr_t)word;
    return true;
}

static PyObject *front_attach(PyObject *object, PyObject *args) {
    Front *self = (Front *)object;
    Core core;
    if (!parse_core(args, "(KKKKKK)O", &core, NULL, NULL)) return NULL;
    PyObject *old = self->core.owner;
    Py_INCREF(core.owner);
    self->entered = 0;
    self->core = core;
    Py_XDECREF(old);
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
    self->entered = self->core.word ? generation : 0;
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
    Py_VISIT(self->core.owner);
    Py_VISIT(self->tables);
    Py_VISIT(self->scalars);
    Py_VISIT(self->others);
    Py_VISIT(self->decode);
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

PyDoc_STRVAR(pin_doc, "pin(addresses, owner, key, /)\n--\n\n"
"Pin the value of an encoded key. Return csm_view_acquire's code, and if that is CSM_OK the format and a View, else 0 and None.");

static PyObject *module_pin(PyObject *module, PyObject *args) {
    (void)module;
    Core core;
    const char *key;
    Py_ssize_t n;
    csm_view *view;
    if (!parse_core(args, "(KKKKKK)Oy#", &core, &key, &n)) return NULL;
    int code = core.acquire(core.handle, key, (size_t)n, &view);
    if (code != CSM_OK) return Py_BuildValue("(iiO)", code, 0, Py_None);
    int format = (int)view->format;
    PyObject *found = view_of(&core, view);
    return found ? Py_BuildValue("(iiN)", code, format, found) : NULL;
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
    {"pin", module_pin, METH_VARARGS, pin_doc},
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
    view_type = PyType_FromSpec(&view_spec);
    if (!name_cached || !name_drain || !name_keep || !caches || !front_type || !view_type) goto failed;
    Py_INCREF(front_type);
    if (PyModule_AddObject(module, "Front", front_type) == 0) return module;
    Py_DECREF(front_type);
failed:
    Py_DECREF(module);
    return NULL;
}
