/* module.c: the module coopshm._front. */
#include "front.h"

Shared shared;

/* A uWSGI or mod_wsgi may run each site in a sub-interpreter of one process. `shared` would have them find each other's caches,
 * which have other namespaces, and classes that are not the same ones. So only one interpreter has coopshm, and it is always the
 * same one, whichever site is loaded first: the main one. */
static bool is_main_interpreter(void) {
    int64_t id = PyInterpreterState_GetID(PyInterpreterState_Get());
    if (id > 0)
        PyErr_SetString(PyExc_ImportError,
                        "coopshm works in the main interpreter of a process, and this is a sub-interpreter: set "
                        "single-interpreter = true for uWSGI, WSGIApplicationGroup %{GLOBAL} for mod_wsgi, or run each application "
                        "in a process of its own");
    return id == 0;
}

Front *front_named(PyObject *name) {
    PyObject *cache = PyDict_GetItemWithError(shared.caches, name);
    Py_XINCREF(cache);
    if (!cache && !PyErr_Occurred()) cache = PyObject_CallFunctionObjArgs(shared.open_cache, name, NULL);
    if (!cache || PyObject_TypeCheck(cache, (PyTypeObject *)shared.front_type)) return (Front *)cache;
    PyErr_SetString(PyExc_TypeError, "coopshm.open() returned something that is no cache");
    Py_DECREF(cache);
    return NULL;
}

bool front_parse_core(PyObject *args, const char *format, Core *core, PyObject **key) {
    unsigned long long find, acquire, release, handle, base, word, hot, settle;
    if (!PyArg_ParseTuple(args, format, &find, &acquire, &release, &handle, &base, &word, &hot, &settle, &core->owner, key))
        return false;
    core->find = (__typeof__(csm_find) *)(uintptr_t)find;
    core->acquire = (__typeof__(csm_view_acquire) *)(uintptr_t)acquire;
    core->release = (__typeof__(csm_view_release) *)(uintptr_t)release;
    core->handle = (csm *)(uintptr_t)handle;
    core->base = (const unsigned char *)(uintptr_t)base;
    core->word = (const uint64_t *)(uintptr_t)word;
    core->hot = (uint64_t **)(uintptr_t)hot;
    core->settle = (__typeof__(csm_hot_settle) *)(uintptr_t)settle;
    return true;
}

PyDoc_STRVAR(module_cached_doc, "cached(name, key, fn, /, *, timeout=None, on_timeout=None)\n--\n\n"
"Return the value of `key` in cache `name`, calling `fn` to compute it if no process has.\n"
"\n"
"See `Cache.cached` for arguments, result and errors, and `open` for the errors of the first use.\n");

/* By itself, so that the room for limits costs nothing to a call that has none. */
__attribute__((noinline)) static PyObject *get_within(Front *cache, PyObject *const *args, PyObject *names) {
    Limits limits;
    if (!front_limits(cache, "coopshm.cached", args + 3, names, &limits)) return NULL;
    return front_get(cache, args[1], args[2], &limits);
}

static PyObject *module_cached(PyObject *module, PyObject *const *args, Py_ssize_t n, PyObject *names) {
    (void)module;
    if (n != 3) {
        PyErr_Format(PyExc_TypeError, "coopshm.cached() takes a name, a key and a function, but got %zd arguments", n);
        return NULL;
    }
    Front *cache = front_named(args[0]);
    if (!cache) return NULL;
    PyObject *value = names ? get_within(cache, args, names) : front_get(cache, args[1], args[2], NULL);
    Py_DECREF(cache);
    return value;
}

PyDoc_STRVAR(bind_doc, "bind(caches, open, decode_error, /)\n--\n\n"
"Where `cached` finds caches by name, what it calls for others, and what a decoder raises.");

static PyObject *module_bind(PyObject *module, PyObject *args) {
    (void)module;
    PyObject *new_caches, *new_open, *new_error;
    if (!PyArg_ParseTuple(args, "O!OO", &PyDict_Type, &new_caches, &new_open, &new_error)) return NULL;
    Py_INCREF(new_caches);
    Py_INCREF(new_open);
    Py_INCREF(new_error);
    shared.caches = new_caches; /* once per process: what was there before is not missed */
    shared.open_cache = new_open;
    shared.decode_error = new_error;
    return front_none();
}

PyDoc_STRVAR(pin_doc, "pin(addresses, owner, key, /)\n--\n\n"
"Pin the value of an encoded key. Return csm_view_acquire's code, and if that is CSM_OK the format and a View, else 0 and None.");

static PyObject *module_pin(PyObject *module, PyObject *args) {
    (void)module;
    Core core;
    PyObject *bytes;
    char *key;
    Py_ssize_t n;
    csm_view *view;
    if (!front_parse_core(args, "(KKKKKKKK)OS", &core, &bytes) || PyBytes_AsStringAndSize(bytes, &key, &n) != 0) return NULL;
    int code = core.acquire(core.handle, key, (size_t)n, &view);
    if (code != CSM_OK) return Py_BuildValue("(iiO)", code, 0, Py_None);
    int format = (int)view->format;
    PyObject *found = front_view(&core, view);
    return found ? Py_BuildValue("(iiN)", code, format, found) : NULL;
}

PyDoc_STRVAR(encode_doc, "encode_key(key, /)\n--\n\n"
"Return the encoding of `key` as keys.py defines it, or None for a key that is left to that.");

static PyObject *module_encode(PyObject *module, PyObject *key) {
    (void)module;
    Encoded data;
    if (front_encode(&data, key)) return PyBytes_FromStringAndSize(data.at, (Py_ssize_t)data.n);
    return front_none();
}

static PyMethodDef module_methods[] = {
    {"cached", (PyCFunction)(void (*)(void))module_cached, METH_FASTCALL | METH_KEYWORDS, module_cached_doc},
    {"bind", module_bind, METH_VARARGS, bind_doc},
    {"pin", module_pin, METH_VARARGS, pin_doc},
    {"encode_key", module_encode, METH_O, encode_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "coopshm._front", .m_doc = "The way of a hit.", .m_size = 0, .m_methods = module_methods,
};

static bool add(PyObject *module, const char *name, PyType_Spec *spec, PyObject **type) {
    *type = PyType_FromSpec(spec);
    if (!*type) return false;
    Py_INCREF(*type);
    if (PyModule_AddObject(module, name, *type) == 0) return true;
    Py_DECREF(*type);
    return false;
}

/* Called in each interpreter that imports the module, since it does not say (m_size -1) that a copy of the first will do. */
PyMODINIT_FUNC PyInit__front(void) {
    if (!is_main_interpreter()) return NULL;
    PyObject *module = PyModule_Create(&definition);
    if (!module) return NULL;
    shared.name_cached = PyUnicode_InternFromString("_cached");
    shared.name_look = PyUnicode_InternFromString("_look");
    shared.name_keep = PyUnicode_InternFromString("_keep");
    shared.name_ask = PyUnicode_InternFromString("_ask");
    shared.name_limit = PyUnicode_InternFromString("_limit");
    shared.caches = PyDict_New();
    if (shared.name_cached && shared.name_look && shared.name_keep && shared.name_ask && shared.name_limit && shared.caches &&
        add(module, "Front", &front_spec, &shared.front_type) && add(module, "View", &view_spec, &shared.view_type) &&
        add(module, "Memo", &memo_spec, &shared.memo_type))
        return module;
    Py_DECREF(module);
    return NULL;
}
