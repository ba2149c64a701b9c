/* encode.c: keys as bytes.
 *
 * keys.py defines the encoding, and does what is rare: floats, numbers beyond 64 bits, lone surrogates, long keys, and telling what
 * is wrong with a key. Here are the ordinary ones. A test holds the two to the same bytes. */
#include "front.h"

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

static bool append(Encoded *to, PyObject *key, int depth) {
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
            if (!put(to, "\0\0", 2) || !append(to, PyTuple_GetItem(key, i), depth + 1)) return false;
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

bool front_encode(Encoded *to, PyObject *key) {
    to->n = 0;
    return append(to, key, 0);
}
