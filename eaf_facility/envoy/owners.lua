local SERVICE = "/inference.GRPCInferenceService/"
local TOKEN, CLAIMS = "envoy.filters.http.jwt_authn", "jwt"
local FIELDS = "envoy.filters.http.grpc_field_extraction"  -- from where the access log takes the model
local LIST = "eaf_inference.list"  -- the user whose list of models is to be shortened
local PREFIX = 5  -- bytes before a message: compressed or not, and its length
local MOST_FIELDS, LONGEST_NAME = 1024, 255
local INVALID_ARGUMENT, NOT_FOUND, PERMISSION_DENIED, UNIMPLEMENTED, INTERNAL = 3, 5, 7, 12, 13

local function refuse(status, message)
  error({status = status, message = message})
end

local function escaped(user)
  return (user:gsub("[^A-Za-z0-9-]", function(byte) return ("_%02x"):format(byte:byte()) end))
end

local function user_of(handle)
  local token = handle:streamInfo():dynamicMetadata():get(TOKEN)
  local user = token and token[CLAIMS] and token[CLAIMS].sub
  if type(user) ~= "string" then
    refuse(PERMISSION_DENIED, "the token names no user")
  end
  return escaped(user)
end

local function is_hidden(name, user)
  local owner = name:match("^([^.]*)%.")
  return owner and owner ~= user and not settings.shared_models[name] and not settings.operators[user]
end

-- Return the number at a place of a text, and the place after it.
local function number_at(text, place)
  local number, unit = 0, 1
  for each = place, place + 4 do
    local byte = text:byte(each)
    if not byte then
      return
    end
    number, unit = number + byte % 128 * unit, unit * 128
    if byte < 128 then
      return number, each + 1
    end
  end
end

local function check_message(body)
  local length = body and body:length() or 0
  if length < PREFIX then
    refuse(INVALID_ARGUMENT, "the request holds no message")
  end
  local compressed, a, b, c, d = body:getBytes(0, PREFIX):byte(1, PREFIX)
  if compressed ~= 0 or ((a * 256 + b) * 256 + c) * 256 + d ~= length - PREFIX then
    refuse(INVALID_ARGUMENT, "expected one message, not compressed, and nothing after it")
  end
end

-- Iterate over the fields of a message, which ends at `stop` and is read by `read(place, length)`: a field's tag, the
-- place and length of its content, and its own place.
-- Triton's messages need no other kind of field than these. Envoy's own parser takes the others for something else.
local function fields(read, stop, most)
  local place, count = PREFIX, 0
  return function()
    if place == stop then
      return
    end
    local head = read(place, math.min(6, stop - place))
    local tag, length, after = head:byte(1), number_at(head, 2)
    count = count + 1
    if tag >= 128 or tag % 8 ~= 2 or not length or place + after - 1 + length > stop or count > most then
      refuse(INVALID_ARGUMENT, "the message has a field that Triton does not know, or too many of them")
    end
    local began = place
    place = began + after - 1 + length
    return tag, began + after - 1, length, began
  end
end

local function log_model(handle, name)
  local shown = name:sub(1, 128):gsub("[^\32-\126]", "?")
  handle:streamInfo():dynamicMetadata():set(FIELDS, "model_name", {shown})
end

-- Return the one name that Triton reads too: of several it would take the last, and cut one at a NUL.
local function named_model(handle, body)
  check_message(body)
  local name
  local function read(place, length)
    return body:getBytes(place, length)
  end
  for tag, start, length in fields(read, body:length(), MOST_FIELDS) do
    if tag == 0x0a then
      if name then
        refuse(INVALID_ARGUMENT, "the request names its model more than once")
      end
      name = body:getBytes(start, math.min(length, LONGEST_NAME + 1))
      log_model(handle, name)
    end
  end
  name = name or ""
  if #name > LONGEST_NAME or name:find("[%z\1-\31\127]") then
    refuse(INVALID_ARGUMENT, "the model's name has control characters, or more than " .. LONGEST_NAME .. " bytes")
  end
  return name
end

local function may_use(handle, body)
  local name = named_model(handle, body)
  if settings.private_models and is_hidden(name, user_of(handle)) then
    refuse(NOT_FOUND, "the model is not found among those that you may use: other users' models are private here")
  end
end

local function may_list(handle)
  if settings.private_models then
    handle:streamInfo():dynamicMetadata():set(LIST, "user", user_of(handle))
  end
end

local function may_describe(handle, body)
  if settings.private_models then
    may_use(handle, body)
  end
end

local function may_read_statistics(handle, body)
  may_describe(handle, body)
  may_list(handle)
end

local function may_change(handle, body)
  check_message(body)
  local user, message = user_of(handle), body:getBytes(PREFIX, body:length() - PREFIX)
  local length, start = number_at(message, 2)
  local name = message:byte(1) == 0x12 and length and message:sub(start, start + length - 1) or ""
  log_model(handle, name)
  if name == "" or start + length - 1 ~= #message then
    refuse(PERMISSION_DENIED, "a request to load or unload may hold the model's name only: no parameters, such as a"
      .. " configuration, files or unload_dependents, and no repository")
  end
  local is_name = #name <= LONGEST_NAME and not name:find("[^A-Za-z0-9_.+-]") and not name:find("..", 1, true)
    and name:byte(1) ~= 46  -- a dot
  if is_name and settings.operators[user] then
    return
  end
  local own = name:sub(1, #user + 1) == user .. "." and name:sub(#user + 2) or ""
  if not is_name or not own:find("^[A-Za-z0-9]") or own:find("+", 1, true) then
    refuse(PERMISSION_DENIED, "you may load and unload only your own models, named '" .. user:sub(1, 200) .. ".NAME',"
      .. " with a NAME of letters, digits, '_', '-' and single '.' that begins with a letter or a digit")
  end
end

local function anyone() end

local RULES = {
  ModelInfer = may_use,
  ModelConfig = may_describe,
  ModelMetadata = may_describe,
  ModelReady = may_describe,
  ModelStatistics = may_read_statistics,
  RepositoryIndex = may_list,
  RepositoryModelLoad = may_change,
  RepositoryModelUnload = may_change,
  ServerLive = anyone,
  ServerMetadata = anyone,
  ServerReady = anyone,
}

local function judge(handle, body)
  local path = handle:headers():get(":path")
  local rule = path:sub(1, #SERVICE) == SERVICE and RULES[path:sub(#SERVICE + 1)]
  if not rule then
    refuse(UNIMPLEMENTED, "Triton has no such method")
  end
  rule(handle, body)
end

function envoy_on_request(handle)
  local body = handle:body()
  local allowed, why = pcall(judge, handle, body)
  if allowed then
    return
  end
  if type(why) ~= "table" then  -- Envoy would pass on a request after an error
    handle:logErr(why)
    why = {status = INTERNAL, message = "Envoy could not check the request"}
  end
  handle:respond({
    [":status"] = "200",
    ["content-type"] = "application/grpc",
    ["grpc-status"] = tostring(why.status),
    ["grpc-message"] = why.message,
  })
end

local function shortened(body, user)
  check_message(body)
  local kept, text = {}, body:getBytes(0, body:length())
  local function read(place, length)
    return text:sub(place + 1, place + length)
  end
  for tag, start, length, began in fields(read, #text, math.huge) do
    local model = read(start, length)
    local size, first = number_at(model, 2)
    if tag ~= 0x0a or model:byte(1) ~= 0x0a or not size then
      error("a list of models has an entry without a name")
    end
    if not is_hidden(model:sub(first, first + size - 1), user) then
      kept[#kept + 1] = read(began, start + length - began)
    end
  end
  local message = table.concat(kept)
  local size = #message
  local prefix = string.char(0, math.floor(size / 2 ^ 24), math.floor(size / 2 ^ 16) % 256,
    math.floor(size / 2 ^ 8) % 256, size % 256)
  return prefix .. message
end

function envoy_on_response(handle)
  local list = handle:streamInfo():dynamicMetadata():get(LIST)
  local body = list and handle:body()
  if not body then
    return
  end
  local done, answer = pcall(shortened, body, list.user)
  if done then
    body:setBytes(answer)
    return
  end
  handle:logErr(type(answer) == "table" and answer.message or answer)
  body:setBytes("")
  local trailers = handle:trailers()
  if trailers then
    trailers:replace("grpc-status", tostring(INTERNAL))
    trailers:replace("grpc-message", "Envoy could not read Triton's list of models")
  end
end
