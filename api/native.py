"""The native API, ``/ledger/v1``: workers create and report, operators read, cancel, and see to keys and accounts.

All of its routes are here; what each does is in the file that its function comes from. It is a contract as the vendors'
are, but for its operations, which are carried out by functions of their own.
"""

from api.contracts.shape import CONTENT_MAX_BYTES, Act, Contract, bearer
from api.metrics import metrics
from api.native_accounts import grant, revoke_grant, set_limit, show_account
from api.native_batch import BATCH_MAX_BYTES, report_many
from api.native_billing import summary
from api.native_breaks import STATEMENT_MAX_BYTES, breaks, change_break, reconcile, reconciliation, statement
from api.native_callbacks import list_callbacks, resend, rotate_secret, show_secret
from api.native_create import create
from api.native_feed import events
from api.native_keys import issue_key, list_keys, revoke_key, rotate_key
from api.native_list import list_tasks
from api.native_refusals import refuse
from api.native_shapes import CONTRACT_NAME
from api.native_tasks import cancel, history, read, report
from ledger.events import School
from ledger.ids import Spelling
from ledger.keys import Role

CONTRACT = Contract(
    name=CONTRACT_NAME,
    spelling=Spelling.UUID,
    school=School.HOLD,  # never asked for: a task is a vendor contract's
    roles=frozenset({Role.WORKER, Role.OPERATOR}),
    operations=(
        Act("POST", "/v1/tasks", create, body_max_bytes=CONTENT_MAX_BYTES),
        Act("GET", "/v1/tasks", list_tasks),
        Act("GET", "/v1/tasks/{id}", read),
        Act("POST", "/v1/tasks/{id}/events", report, body_max_bytes=CONTENT_MAX_BYTES),
        Act("GET", "/v1/tasks/{id}/events", history),
        Act("GET", "/v1/events", events, operator_only=True),
        Act("POST", "/v1/events", report_many, body_max_bytes=BATCH_MAX_BYTES),
        Act("POST", "/v1/tasks/{id}/cancel", cancel, operator_only=True),
        Act("POST", "/v1/keys", issue_key, operator_only=True),
        Act("GET", "/v1/keys", list_keys, operator_only=True),
        Act("DELETE", "/v1/keys/{id}", revoke_key, operator_only=True),
        Act("POST", "/v1/keys/{id}/rotate", rotate_key, operator_only=True),
        Act("GET", "/v1/accounts/{account}", show_account),
        Act("PUT", "/v1/accounts/{account}/limit", set_limit, operator_only=True),
        Act("POST", "/v1/accounts/{account}/grants", grant, operator_only=True),
        Act("POST", "/v1/accounts/{account}/revocations", revoke_grant, operator_only=True),
        Act("GET", "/v1/accounts/{account}/callback-secret", show_secret, operator_only=True),
        Act("POST", "/v1/accounts/{account}/callback-secret/rotate", rotate_secret, operator_only=True),
        Act("GET", "/v1/callbacks", list_callbacks, operator_only=True),
        Act("POST", "/v1/callbacks/{id}/resend", resend, operator_only=True),
        Act("GET", "/v1/billing/summary", summary, operator_only=True),
        Act("GET", "/v1/billing/breaks", breaks, operator_only=True),
        Act("POST", "/v1/billing/breaks/{id}", change_break, operator_only=True),
        Act("POST", "/v1/billing/statements", statement, operator_only=True, body_max_bytes=STATEMENT_MAX_BYTES),
        Act("GET", "/v1/billing/reconciliation", reconciliation, operator_only=True),
        Act("POST", "/v1/billing/reconciliation", reconcile, operator_only=True),
        Act("GET", "/metrics", metrics, operator_only=True),
    ),
    token=bearer,
    gone=lambda _, __: False,
    refuse=refuse,
)
