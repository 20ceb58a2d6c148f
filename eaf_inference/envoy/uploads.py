"""How many requests one user may be sending at the same time, as a script for Envoy's Lua filter. Pure.

Envoy keeps the body of a request in memory until it is complete, so a user who begins many large requests and
finishes none would fill it. Envoy 1.40 can limit each user's calls a second, but not each user's calls at the same
time (https://github.com/envoyproxy/envoy/issues/41219).

Each worker thread of Envoy runs its own Lua, and counts the uploads on its own connections. Lua sees the end of a
body, but not the reset of a stream: that call's `place` becomes garbage, which is collected before a user is refused.
"""

from __future__ import annotations

__all__ = ["uploads_script"]

_SCRIPT = """\
local uploads = {}  -- user: how many

local function place_for(user)
  uploads[user] = (uploads[user] or 0) + 1
  local place, taken = newproxy(true), true
  getmetatable(place).__gc = function()
    if taken then
      taken = false
      uploads[user] = uploads[user] > 1 and uploads[user] - 1 or nil
    end
  end
  return place
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
    handle:respond({  -- and the script ends here
      [":status"] = "200",
      ["content-type"] = "application/grpc",
      ["grpc-status"] = "8",
      ["grpc-message"] = "you are sending %(most)d requests already, as many as one user may at the same time",
      ["grpc-retry-pushback-ms"] = "%(pushback)d",
    })
  end
  local place = place_for(user)
  for _ in handle:bodyChunks() do
  end
  getmetatable(place).__gc()
end
"""


def uploads_script(most: int, header: str, pushback: int) -> str:
    """The script.

    Parameters
    ----------
    most : int
        Requests that each user may be sending at the same time.
    header : str
        Where the verified user is.
    pushback : int
        Milliseconds after which a refused client comes again.
    """
    return _SCRIPT % {"most": most, "header": header, "pushback": pushback}
