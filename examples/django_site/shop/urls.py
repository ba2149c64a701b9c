"""Which view answers what."""

from django.urls import path

from shop import views

urlpatterns = [
    path("products/<int:number>", views.show_product),
    path("async/products/<int:number>", views.show_product_async),
    path("pages/<int:number>", views.show_page),
    path("pictures/<int:number>", views.show_picture),
    path("reset", views.reset),
    path("health", views.health),
]
