# gunicorn --config sync.py shop.wsgi:application
workers = 4
