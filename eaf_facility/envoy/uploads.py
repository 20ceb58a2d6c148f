"""A script for Envoy's Lua filter that limits the concurrent uploads of each user. Pure function.

Envoy buffers a request's body until it is complete, so a user who begins many large requests and finishes none would
fill its memory. Envoy 1.40 can limit each user's calls a second, but not each user's concurrent calls
(https://github.com/envoyproxy/envoy/issues/41219).

Each worker thread of Envoy runs its own Lua interpreter and counts the uploads on its own connections. Lua sees the
end of a body, but not the reset of a stream. The `slot` of a call that was reset becomes garbage, which is collected
before a user is refused.
"""

from __future__ import annotations

__all__ = ["uploads_script"]

_SCRIPT = """\
local uploads = {}  -- user: number of uploads

local function slot_for(user)
  uploads[user] = (uploads[user] or 0) + 1
  local slot, taken = newproxy(true), true
  getmetatable(slot).__gc = function()
    if taken then
      taken = false
      uploads[user] = uploads[user] > 1 and uploads[user] - 1 or nil
    end
  end
  return slot
end

local function is_full(user)
  return (uploads[user] or 0) >= %(most)d
end

function envoy_on_request(handle)
  local user = handle:headers():get("%(header)s")
  if not user then
    return
  end
  if is_full(user) then
    collectgarbage()
  end
  if is_full(user) then
    handle:respond({  -- this also ends the script
      [":status"] = "200",
      ["content-type"] = "application/grpc",
      ["grpc-status"] = "8",
      ["grpc-message"] = "you are already sending %(most)d requests, the maximum for one user at the same time",
      ["grpc-retry-pushback-ms"] = "%(pushback)d",
    })
  end
  local slot = slot_for(user)
  for _ in handle:bodyChunks() do
  end
  getmetatable(slot).__gc()
end
"""


def uploads_script(most: int, header: str, pushback: int) -> str:
    """Return the script.

    Parameters
    ----------
    most : int
        Requests that each user may be sending at the same time.
    header : str
        Name of the header that holds the verified user.
    pushback : int
        Milliseconds after which a refused client should retry.
    """
    return _SCRIPT % {"most": most, "header": header, "pushback": pushback}
