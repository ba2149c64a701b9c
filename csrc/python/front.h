/* front.h: what the parts of coopshm._front share.
 *
 *   encode.c  keys as bytes              front.c   hits: the type Front
 *   view.c    values over shared memory  memo.c    hits of a decorated function: the type Memo
 *   module.c  the module
 *
 * It is written for the stable ABI where that has buffers, from CPython 3.11 on (setup.py asks for it). All of it runs under
 * the GIL. */
#ifndef COOPSHM_FRONT_H
#define COOPSHM_FRONT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "api.h"

/* What is built for the stable ABI by one CPython runs in others, 3.11 among them, so nothing may be used that headers of later ones
 * mean otherwise. Py_RETURN_NONE is no new reference to those of 3.12 and 3.13, for which None is immortal; to 3.11 it is one
 * too few, until None is freed. And "#" in a format is refused by 3.11 if the headers were 3.13's. */
#undef Py_RETURN_NONE
#undef Py_RETURN_TRUE
#undef Py_RETURN_FALSE
#pragma GCC poison Py_RETURN_NONE Py_RETURN_TRUE Py_RETURN_FALSE

static inline PyObject *front_none(void) {
    Py_INCREF(Py_None);
    return Py_None;
}

/* A segment, as the core knows it. */
typedef struct {
    __typeof__(csm_find) *find;
    __typeof__(csm_view_acquire) *acquire;
    __typeof__(csm_view_release) *release;
    csm *handle;
    const unsigned char *base;
    const uint64_t *word; /* the generation now */
    uint64_t **hot;       /* where hits of hot objects are counted: in the process's row */
    __typeof__(csm_hot_settle) *settle;
    PyObject *owner;      /* keeps the handle from being left */
} Core;

typedef struct {
    PyObject_HEAD
    Core core;
    uint64_t entered;      /* the one whose hooks have run; 0: none */
    PyObject *tables;      /* hot objects: hot.py's object, with these two of its: */
    PyObject *scalars;     /*   str, bytes or int -> value */
    PyObject *others;      /*   other key -> (that key, value): 1, True and 1.0 are one key to a dict, but not here */
    PyObject *decode;      /* (format, payload) -> value */
    PyObject *loads;       /* pickle.loads or None */
    int keeps;             /* hot objects: 0 none, 1 of immutable values, 2 of all */
    Py_ssize_t size_max;   /* of one, encoded */
} Front;

/* Longer encodings than this, and deeper tuples, are left to Python. */
enum { KEY_ROOM = 512, KEY_DEPTH = 4 };

typedef struct {
    size_t n;
    char at[KEY_ROOM];
} Encoded;

/* What the module holds on to. There is one interpreter: see module.c. */
typedef struct {
    PyObject *front_type, *view_type, *memo_type;
    PyObject *name_cached, *name_look, *name_keep, *name_ask, *name_limit; /* methods that are called */
    PyObject *caches, *open_cache, *decode_error;                           /* see `bind` */
} Shared;
extern Shared shared;

extern PyType_Spec front_spec, view_spec, memo_spec;

/* Encodes `key` as keys.py defines it. False: it is not one of those done here; no exception is set. */
bool front_encode(Encoded *to, PyObject *key);

/* A hit's value, as a new reference; or NULL, with an exception set if something is to be raised, without one if it is no hit. */
PyObject *front_hit(Front *self, PyObject *key);

/* How long a call waits for another's computation, and what then: what it said, or Py_None. */
typedef struct {
    PyObject *timeout, *on_timeout;
} Limits;

/* Takes them from a call's keywords, whose values are at `values`, and has `_limit` look at any that is not evidently good. False:
 * with an exception set. `function` is what it is about. */
bool front_limits(Front *self, const char *function, PyObject *const *values, PyObject *names, Limits *limits);

/* A hit's value, or what `_cached` returns for `fn` and, unless they are NULL, `limits`. */
PyObject *front_get(Front *self, PyObject *key, PyObject *fn, const Limits *limits);

/* The cache of that name, as a new reference; or NULL, with an exception set. */
Front *front_named(PyObject *name);

/* An object that has the bytes of `view`, which it takes over. */
PyObject *front_view(const Core *core, csm_view *view);

/* Parses addresses, owner and, where `format` has it, a key, which is then a borrowed reference to bytes. */
bool front_parse_core(PyObject *args, const char *format, Core *core, PyObject **key);

static inline bool front_is_scalar(PyObject *key) {
    return PyUnicode_CheckExact(key) || PyLong_CheckExact(key) || PyBytes_CheckExact(key);
}

#endif
