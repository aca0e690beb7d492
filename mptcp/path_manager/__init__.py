"""Path managers: who decides which paths a connection may use (thesis §4.2, §4.4)."""

from mptcp.path_manager.base import EndpointId, Path, PathManager, path_managers
from mptcp.path_manager.builtin import BuiltinPathManager, FullMeshPathManager
from mptcp.path_manager.ndiffports import NdiffportsPathManager

__all__ = [
    "BuiltinPathManager",
    "EndpointId",
    "FullMeshPathManager",
    "NdiffportsPathManager",
    "Path",
    "PathManager",
    "path_managers",
]
