/* view.c: values over shared memory. */
#include "front.h"

/* Pinned bytes, as long as it lives; and whatever refers to its buffer (a slice, an array) keeps it alive. */
typedef struct {
    PyObject_HEAD
    csm_view *view;
    __typeof__(csm_view_release) *release;
    PyObject *owner;
} View;

/* Takes over `view`. No thread of Python's runs between the pin and this, so none can fork in between. */
PyObject *front_view(const Core *core, csm_view *view) {
    View *self = PyObject_New(View, (PyTypeObject *)shared.view_type);
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

PyType_Spec view_spec = {
    .name = "coopshm._front.View",
    .basicsize = sizeof(View),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = view_slots,
};

