"""What opens what."""

CLIENT_SECRET = "client-secret-0123456789abcdef"
API_TOKEN = "api-token-0123456789abcdef012345"
WEBHOOK_TOKEN = "webhook-token-0123456789abcdef01"
WEBHOOK_URL = f"http://listener/webhooks/default/{WEBHOOK_TOKEN}"
