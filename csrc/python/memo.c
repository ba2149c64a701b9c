/* memo.c: hits of a decorated function.
 *
 * A call with positional arguments, as many as the function has parameters, is the ordinary one: its key is a tuple of the function's
 * name and the arguments. Every other call, and every miss, goes to the method `_ask` (decorators.py), which makes the same key
 * of the same arguments. */
#include "front.h"

typedef struct {
    PyObject_HEAD
    PyObject *cache;      /* its name */
    PyObject *function;   /* what stands for the function in a key */
    Py_ssize_t arguments; /* an ordinary call has so many; negative: no call is ordinary */
} Memo;

/* The value, or NULL with or without an exception, as front_hit. */
static PyObject *hit(const Memo *self, PyObject *args) {
    Front *cache = front_named(self->cache);
    if (!cache) return NULL;
    Py_ssize_t n = PyTuple_Size(args); /* as many as self->arguments was, before front_named ran any code */
    PyObject *value = NULL, *key = PyTuple_New(n + 1);
    if (key) {
        Py_INCREF(self->function);
        PyTuple_SetItem(key, 0, self->function);
        for (Py_ssize_t i = 0; i < n; i++) {
            PyObject *argument = PyTuple_GetItem(args, i);
            Py_INCREF(argument);
            PyTuple_SetItem(key, i + 1, argument);
        }
        value = front_hit(cache, key);
        Py_DECREF(key);
    }
    Py_DECREF(cache);
    return value;
}

static PyObject *memo_call(PyObject *object, PyObject *args, PyObject *kwargs) {
    Memo *self = (Memo *)object;
    bool is_ordinary = PyTuple_Size(args) == self->arguments && (!kwargs || PyDict_Size(kwargs) == 0);
    PyObject *value = is_ordinary ? hit(self, args) : NULL;
    if (value || PyErr_Occurred()) return value;
    PyObject *named = kwargs ? kwargs : PyDict_New();
    if (named) value = PyObject_CallMethodObjArgs(object, shared.name_ask, args, named, NULL);
    if (!kwargs) Py_XDECREF(named);
    return value;
}

static int memo_init(PyObject *object, PyObject *args, PyObject *kwargs) {
    Memo *self = (Memo *)object;
    PyObject *cache, *function;
    Py_ssize_t arguments;
    if (kwargs || !PyArg_ParseTuple(args, "UUn", &cache, &function, &arguments)) return -1;
    PyObject *old[] = {self->cache, self->function};
    Py_INCREF(cache);
    Py_INCREF(function);
    self->cache = cache;
    self->function = function;
    self->arguments = arguments;
    Py_XDECREF(old[0]);
    Py_XDECREF(old[1]);
    return 0;
}

static PyObject *memo_new(PyTypeObject *type, PyObject *args, PyObject *kwargs) {
    Memo *self = (Memo *)PyType_GenericNew(type, args, kwargs);
    if (self) self->arguments = -1;
    return (PyObject *)self;
}

static int memo_traverse(PyObject *object, visitproc visit, void *arg) {
    Memo *self = (Memo *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->cache);
    Py_VISIT(self->function);
    return 0;
}

static int memo_clear(PyObject *object) {
    Memo *self = (Memo *)object;
    self->arguments = -1;
    Py_CLEAR(self->cache);
    Py_CLEAR(self->function);
    return 0;
}

static void memo_dealloc(PyObject *object) {
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    memo_clear(object);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(object);
    Py_DECREF(type);
}

static PyType_Slot memo_slots[] = {
    {Py_tp_doc, "Hits of a decorated function. Memo(cache, function, arguments): the name of the cache, what stands for the function in a\n"
                "key, and how many arguments an ordinary call has (-1: none is ordinary). Other calls go to `_ask(args, kwargs)`."},
    {Py_tp_call, memo_call},
    {Py_tp_new, memo_new},
    {Py_tp_init, memo_init},
    {Py_tp_traverse, memo_traverse},
    {Py_tp_clear, memo_clear},
    {Py_tp_dealloc, memo_dealloc},
    {0, NULL},
};

PyType_Spec memo_spec = {
    .name = "coopshm._front.Memo",
    .basicsize = sizeof(Memo),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = memo_slots,
};
