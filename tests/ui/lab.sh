#!/bin/bash
# lab.sh PORT [mock|real]
cd /tmp/w/ui; D=/tmp/w/ui/j$1; mkdir -p $D/{config,data,runtime,settings/@jupyterlab/apputils-extension,workspaces,ipy,root} labext
ln -sfn /work/main/eaf_inference/labextension labext/eaf-inference
echo '{"fetchNews":"false","checkForUpdates":false}' > $D/settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings
export JUPYTER_CONFIG_DIR=$D/config JUPYTER_DATA_DIR=$D/data JUPYTER_RUNTIME_DIR=$D/runtime JUPYTERLAB_SETTINGS_DIR=$D/settings JUPYTERLAB_WORKSPACES_DIR=$D/workspaces IPYTHONDIR=$D/ipy PYTHONPATH=/tmp/w/ui:/work/main PYTHONDONTWRITEBYTECODE=1
ext=${2:-mock}; [ $ext = mock ] && ext=mockext || ext=eaf_inference.server
cd $D/root
exec /work/main/.venv/bin/python -m jupyterlab --allow-root --no-browser --ServerApp.ip=127.0.0.1 --ServerApp.port=$1 --ServerApp.port_retries=0 --IdentityProvider.token=tok --ServerApp.base_url=/user/alice/ --LabApp.extension_manager=readonly --LabApp.expose_app_in_browser=True --LabApp.extra_labextensions_path=/tmp/w/ui/labext --ServerApp.jpserver_extensions="{'eaf_inference.server': False, '$ext': True}"
